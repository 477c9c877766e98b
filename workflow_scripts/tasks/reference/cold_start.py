"""Answers for the cold start of the task `reference`: from a file of questions with solutions, or made up."""

from collections.abc import Iterator
from typing import Any

from workflow_scripts.core.records import WorkedExample
from workflow_scripts.tasks import defaults
from workflow_scripts.tasks.reference.instructions import made_up_examples


class ColdStart(defaults.ColdStart):
    """Instructions with answers."""

    def examples(self, cold_start: dict[str, Any], seed: int) -> Iterator[WorkedExample]:
        if cold_start["count"]:
            return made_up_examples(cold_start["count"], seed)
        return super().examples(cold_start, seed)
