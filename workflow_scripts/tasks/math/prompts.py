"""The questions of the task `math`: from a file, or made up."""

from collections.abc import Iterator
from typing import Any

from workflow_scripts.core.records import Prompt
from workflow_scripts.tasks import defaults
from workflow_scripts.tasks.math.arithmetic import made_up_prompts


class Prompts(defaults.Prompts):
    """Questions with the final answer as reference. The recipe names the keys of the original's seed data."""

    def read(self, source: dict[str, Any], split: str, seed: int) -> Iterator[Prompt]:
        if source["count"]:
            yield from made_up_prompts(source["count"], split, seed)
            return

        for prompt in defaults.file_prompts(source, split):
            prompt["reference"] = as_text(prompt["reference"])
            yield prompt


def as_text(reference: Any) -> str | None:
    """Return a reference as text; the original's gold_list, and its [text, number], hold it in the first place."""
    if isinstance(reference, list):
        reference = reference[0] if reference else None

    is_nan = reference != reference  # pandas writes a missing number as NaN
    return str(reference) if isinstance(reference, str | int | float) and not is_nan else None
