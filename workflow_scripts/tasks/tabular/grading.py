"""Grade an answer by whether it is a row of the table."""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from workflow_scripts.core.records import Answer
from workflow_scripts.tasks import defaults
from workflow_scripts.tasks.tabular.extraction import STATUSES, extract
from workflow_scripts.tasks.tabular.schemas import Schema, read_schema

ENOUGH = 50  # answers without a row that tell that the generator has not learnt to write rows


class Grading(defaults.Grading):
    """Adds `reward` (1 for a valid row, else 0), `status` (one of STATUSES) and `row` (the row, or None).

    The file `schema` is the table's schema.json. With several tables there is one for each, `schema.NAME`, and an
    answer's level names its table.
    """

    @property
    def depends_on(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("answer",) if "schema" in self.files else ("answer", "level")

    @cached_property
    def schemas(self) -> dict[str, Schema]:
        """The schemas by the name of their file."""
        return {name: read_schema(path) for name, path in self.files.items()}

    def grade(self, answer: Answer, run: defaults.RunProgram) -> dict[str, Any]:
        name = "schema" if "schema" in self.files else f"schema.{answer['level']}"
        status, row = extract(answer["answer"], self.schemas[name])
        return {
            "reward": float(status == "SUCCESS"),
            "status": status,
            "row": row,
        }

    def fault(self, graded: Sequence[dict[str, Any]]) -> str | None:
        """Return why a round cannot learn from a shard: it has ENOUGH answers, and none of them is a row."""
        if len(graded) < ENOUGH or any(answer["row"] for answer in graded):
            return None

        counts = Counter(answer["status"] for answer in graded)
        return (
            f"none of {len(graded)} answers is a row of the table ({dict(counts)}), so nothing would be learnt; the "
            f"first is {graded[0]['answer']!r:.200}. Train the cold start longer, or on more `tabular.examples`"
        )

    def summary(self, graded: Sequence[dict[str, Any]], answers: Sequence[dict[str, Any]]) -> dict[str, float]:
        """Return the shares of the statuses that occur."""
        counts = Counter(answer["status"] for answer in graded)
        shares = {status: counts[status] / len(graded) for status in STATUSES if counts[status]}
        return shares | {"n": len(graded)}
