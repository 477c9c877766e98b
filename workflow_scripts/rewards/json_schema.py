"""1 if the answer is JSON that satisfies a schema (JSON Schema, 2020-12 unless it names another draft), else 0.

If the answer has Markdown code blocks, the last one counts, else its whole text.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workflow_scripts.core.errors import BadInput
from workflow_scripts.rewards import Reward

OPTIONS = {"schema": ""}  # a JSON file; it must be given
FILES = ("schema",)
PACKAGES = ("jsonschema",)
LONGEST = 1_000_000  # characters that are parsed
BLOCK = re.compile(r"```(?:json)?[ \t]*\n(.*?)```", re.DOTALL)


def make(model: str | None = None, options: dict[str, Any] = OPTIONS) -> Reward:
    from jsonschema import Draft202012Validator, SchemaError
    from jsonschema.validators import validator_for

    path = options["schema"]
    try:
        schema = json.loads(Path(path).read_text())
        validator = validator_for(schema, default=Draft202012Validator)
        validator.check_schema(schema)
    except (OSError, ValueError, SchemaError) as error:
        raise BadInput(f"reward json_schema: options.schema {path}: {str(error).splitlines()[0]}") from None
    checker = validator(schema)

    def satisfies(answer: str, references: Sequence[str], record: dict[str, Any]) -> float:
        blocks = BLOCK.findall(answer[:LONGEST])
        text = blocks[-1] if blocks else answer
        try:
            return float(len(text) <= LONGEST and checker.is_valid(json.loads(text)))
        except (ValueError, RecursionError):  # no JSON, or nested too deeply
            return 0.0

    return satisfies
