"""The metrics of the task `code`."""

from collections.abc import Sequence
from typing import Any, ClassVar

from workflow_scripts.tasks import defaults
from workflow_scripts.tasks.defaults import mean


class Evaluation(defaults.Evaluation):
    """Accuracy (all tests passed), and the mean share of tests passed."""

    metrics: ClassVar = {"accuracy": ("accuracy", ".1%"), "passed": ("tests passed", ".1%")}

    def measure(self, answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {
            "accuracy": mean(answer["passed"] == 1 for answer in answers),
            "passed": mean(answer["passed"] for answer in answers),
            "n": len(answers),
        }
