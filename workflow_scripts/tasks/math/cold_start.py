"""Worked answers for the cold start of the task `math`: from a file of questions with solutions, or made up."""

from collections.abc import Iterator
from typing import Any

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.records import WorkedExample, read_records
from workflow_scripts.tasks import defaults
from workflow_scripts.tasks.math.arithmetic import made_up_examples
from workflow_scripts.tasks.math.conversation import segments


class ColdStart(defaults.ColdStart):
    """Questions with worked solutions."""

    def examples(self, cold_start: dict[str, Any], seed: int) -> Iterator[WorkedExample]:
        if cold_start["count"]:
            yield from made_up_examples(cold_start["count"], seed)
            return

        file = cold_start["file"]
        for number, record in enumerate(read_records(file), 1):
            question = record.get("question", record.get("q"))
            solution = record.get("solution", record.get("s"))
            if not all(isinstance(text, str) and text.strip() for text in (question, solution)):
                raise BadInput(
                    f"{file}, record {number}: question (or q) and solution (or s) should be text, found {record!r:.80}"
                )
            yield {"question": question, "pieces": segments(solution), "trigger": "auto"}  # type: ignore
