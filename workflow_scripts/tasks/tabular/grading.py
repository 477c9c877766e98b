"""Whether an answer is a row of the table."""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from workflow_scripts.core.records import Answer
from workflow_scripts.tasks import defaults
from workflow_scripts.tasks.tabular.extraction import STATUSES, extract
from workflow_scripts.tasks.tabular.schemas import Schema, read_schema


class Grading(defaults.Grading):
    """Adds `reward` (1 for a valid row, else 0), `status` (one of STATUSES) and `row` (the row, or None).

    The file `schema` is the table's schema.json.
    """

    depends_on = ("answer",)

    @cached_property
    def schema(self) -> Schema:
        return read_schema(self.files["schema"])

    def grade(self, answer: Answer, run: defaults.RunProgram) -> dict[str, Any]:
        status, row = extract(answer["answer"], self.schema)
        return {
            "reward": float(status == "SUCCESS"),
            "status": status,
            "row": row,
        }

    def summary(self, graded: Sequence[dict[str, Any]], answers: Sequence[dict[str, Any]]) -> dict[str, float]:
        """Return the shares of the statuses that occur."""
        counts = Counter(answer["status"] for answer in graded)
        shares = {status: counts[status] / len(graded) for status in STATUSES if counts[status]}
        return shares | {"n": len(graded)}
