"""Questions with tests: of a file of yours, or as data sets publish them.

The data set is recognised by its columns (`readers.py`). What the model is asked is the published prompt with an
instruction around it, because answers are graded by the program in their last Markdown code block.

A test is text: Python that fails by an exception, such as an assert statement, or JSON with the keys `stdin` and
`stdout`. In a file of yours, such a test may also be an object with these keys.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from workflow_scripts.core.identity import record_id
from workflow_scripts.core.records import Prompt
from workflow_scripts.core.sources import records_of
from workflow_scripts.tasks import defaults
from workflow_scripts.tasks.code.readers import READERS, as_tests

ACECODE = ("question", "test_cases")


class Prompts(defaults.Prompts):
    """Questions from a file or data set; the reference is a list of tests, such as assert statements."""

    def read(self, source: dict[str, Any], split: str, seed: int) -> Iterator[Prompt]:
        first = next(iter(records_of(source)), {})
        convert = next((reader for columns, reader in READERS.items() if first.keys() >= set(columns)), None)

        if convert is not None:
            for record in islice(records_of(source), source["limit"]):
                prompt: Any = convert(record)
                prompt["id"] = str(record.get("task_id") or record.get("question_id") or record_id(prompt["question"]))
                prompt["level"] = str(record.get("difficulty") or split)
                yield prompt
            return

        for prompt in defaults.file_prompts(source, split, [ACECODE]):
            prompt["reference"] = as_tests(prompt["reference"])
            yield prompt
