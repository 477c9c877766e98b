"""The prompts of the task `tabular`."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from workflow_scripts.core.records import Prompt, read_records
from workflow_scripts.tasks import defaults


class Prompts(defaults.Prompts):
    """The prompts that the stage gen_synsft wrote.

    Each has `row_number`, the number of the training row that it was made around, and `examples`, the numbers of the
    training rows that it shows. There is no reference: any valid row is a right answer. A limit holds for each table.
    """

    def read(self, source: dict[str, Any], split: str, seed: int) -> Iterator[Prompt]:
        counts: Counter[str] = Counter()  # prompts of each table
        for record in read_records(source["file"]):
            counts[str(record.get("level"))] += 1
            if source["limit"] is None or counts[str(record.get("level"))] <= source["limit"]:
                yield record | {"reference": None}  # type: ignore[misc]

    def fault(self, prompt: Prompt) -> str | None:
        examples = prompt.get("examples")
        has_examples = isinstance(examples, list) and examples and all(isinstance(number, int) for number in examples)
        return None if has_examples else "no examples: numbers of the training rows that the prompt shows"
