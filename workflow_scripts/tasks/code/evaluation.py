"""The metrics of the task `code`."""

from typing import Any, ClassVar

from workflow_scripts.tasks import defaults


class Evaluation(defaults.Evaluation):
    """Accuracy (all tests passed), and the mean share of tests passed."""

    metrics: ClassVar = {"accuracy": ("accuracy", ".1%"), "passed": ("tests passed", ".1%")}
    right: ClassVar[str | None] = "accuracy"

    def values(self, answer: dict[str, Any]) -> dict[str, float]:
        return {"accuracy": float(answer["passed"] == 1), "passed": answer["passed"]}
