"""The metrics of the task `math`."""

from typing import Any, ClassVar

from workflow_scripts.core.identity import normalise
from workflow_scripts.tasks import defaults


class Evaluation(defaults.Evaluation):
    """Accuracy, and the share of answers with code."""

    metrics: ClassVar = {"accuracy": ("accuracy", ".1%"), "code_share": ("share of answers with code", ".0%")}
    right: ClassVar[str | None] = "accuracy"

    def values(self, answer: dict[str, Any]) -> dict[str, float]:
        return {"accuracy": answer["reward"], "code_share": float(answer["path"] == "pot")}

    def vote(self, answer: dict[str, Any]) -> str | None:
        return normalise(answer["prediction"]) or None
