"""Worked answers for the cold start of the task `math`: from a file of questions with solutions, or made up."""

from collections.abc import Iterator
from typing import Any

from workflow_scripts.core.records import WorkedExample
from workflow_scripts.tasks import defaults
from workflow_scripts.tasks.math.arithmetic import made_up_examples
from workflow_scripts.tasks.math.conversation import segments


class ColdStart(defaults.ColdStart):
    """Questions with worked solutions."""

    def examples(self, cold_start: dict[str, Any], seed: int) -> Iterator[WorkedExample]:
        if cold_start["count"]:
            yield from made_up_examples(cold_start["count"], seed)
            return

        yield from defaults.worked_examples(cold_start, segments)
