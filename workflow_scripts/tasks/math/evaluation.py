"""The metrics of the task `math`."""

from collections.abc import Sequence
from typing import Any, ClassVar

from workflow_scripts.tasks import defaults
from workflow_scripts.tasks.defaults import mean


class Evaluation(defaults.Evaluation):
    """Accuracy, and the share of answers with code."""

    metrics: ClassVar = {"accuracy": ("accuracy", ".1%"), "code_share": ("share of answers with code", ".0%")}

    def measure(self, answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {
            "accuracy": mean(answer["reward"] for answer in answers),
            "code_share": mean(answer["path"] == "pot" for answer in answers),
            "n": len(answers),
        }
