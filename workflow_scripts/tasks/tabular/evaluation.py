"""The metrics of the task `tabular`: how many answers are rows, and what these rows are worth."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.identity import digest
from workflow_scripts.core.running.cli import say
from workflow_scripts.tasks import defaults
from workflow_scripts.tasks.tabular.extraction import STATUSES
from workflow_scripts.tasks.tabular.measures import MAIN, compare, distances, trained_and_tested
from workflow_scripts.tasks.tabular.schemas import Row, Schema, as_text, read_schema, read_table


class Evaluation(defaults.Evaluation):
    """Measures the rows of all answers together, as a table beside the real one.

    Files: `schema`, `train` and `test` of the table; `anchors`, if they are test rows, which are then not tested on.
    With several tables there is one of each for every table, such as `schema.NAME`, and an answer's level names its
    table.
    """

    metrics: ClassVar[dict[str, tuple[str, str]]] = {
        "valid": ("valid rows", ".1%"),
        "tstr": ("trained on synthetic, tested on real", ".3f"),
        "copies": ("duplicates of training rows", ".1%"),
        "target_distance": ("distance of the target's distribution", ".3f"),
        "column_distance": ("mean distance of columns", ".3f"),
    }
    right: ClassVar[str | None] = None

    def values(self, answer: dict[str, Any]) -> dict[str, float]:
        return {"valid": float(answer["status"] == "SUCCESS")}

    def summarise(self, answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return the metrics of a round: of its table, or of each table by level with their means.

        Returns:
            valid, statuses, n: the share of valid rows and of each status, and the number of answers.
            tstr, real, bootstrap, by_model: see `_worth`.
            columns: the distance of each column's distributions (`measures.distances`).
            target_distance, column_distance: that of the target, and the mean over all columns.
            correlation_difference, nearest_distance, nearest_distance_test, copies: see `measures.compare`.
            rows, different: the number of valid rows, and of different ones.
            dropped: the number of duplicates of training rows that taught no model.
            tested: the number of test rows.
        """
        if "schema" in self.files:
            return self._of_table(answers, self.files) | {"by_level": {}}

        by_level = {}
        for name in self.files:
            kind, _, table = name.partition(".")
            if kind == "schema":
                own = [answer for answer in answers if answer["level"] == table]
                suffix = f".{table}"
                files = {key.removesuffix(suffix): path for key, path in self.files.items() if key.endswith(suffix)}
                by_level[table] = self._of_table(own, files)

        means = {}
        for name in self.metrics:
            values = [metrics[name] for metrics in by_level.values()]
            means[name] = sum(values) / len(values)
        return means | {"n": len(answers), "by_level": by_level}

    def _of_table(self, answers: Sequence[dict[str, Any]], files: Mapping[str, str]) -> dict[str, Any]:
        """Return the metrics of one table."""
        schema = read_schema(files["schema"])
        train = read_table(schema, files["train"])
        test = _test_rows(schema, files)
        known = {as_text(row) for row in train}

        rows = [answer["row"] for answer in answers if answer["row"]]
        keeps_duplicates = self.settings.get("copies", "drop") == "keep"
        fresh = [row for row in rows if keeps_duplicates or as_text(row) not in known]
        if not fresh:
            say("there are no valid rows beside duplicates of training rows: models learn one constant answer")

        drawn = self._bootstrap(answers, train, len(fresh) or len(answers))
        likeness = compare(rows, train, test, schema) if rows else NO_LIKENESS
        columns = distances(rows, train, schema)
        if columns[schema.target] > FAR:
            say(
                f"{schema.name}: the distribution of {schema.target!r} in the rows is {columns[schema.target]:.2f} "
                f"away from the real one (warning above {FAR}): models that learn from them expect other labels"
            )

        return {
            **statuses(answers),
            **_worth(fresh, drawn, train, test, schema),
            **likeness,
            "columns": columns,
            "target_distance": columns[schema.target],
            "column_distance": sum(columns.values()) / len(columns),
            "rows": len(rows),
            "different": len({as_text(row) for row in rows}),
            "dropped": len(rows) - len(fresh),
            "tested": len(test),
        }

    def _bootstrap(self, answers: Sequence[dict[str, Any]], train: list[Row], count: int) -> list[Row]:
        """Return rows drawn from those that the prompts show: what the prompts alone are worth."""
        examples = [number for answer in answers for number in answer["examples"]]
        rng = random.Random(f"{self.settings.get('seed', 0)}.bootstrap")
        return [train[number] for number in rng.choices(examples, k=count)]


def _test_rows(schema: Schema, files: Mapping[str, str]) -> list[Row]:
    """Return the test rows, without those that are anchors."""
    path = files["test"]
    rows = read_table(schema, path)

    if "anchors" in files:
        anchors = {digest(row) for row in read_table(schema, files["anchors"])}
        rows = [row for row in rows if digest(row) not in anchors]
    if not rows:
        raise BadInput(f"{path}: no rows are left to test on; give more test rows, or set tabular.anchors to train")

    return rows


FAR = 0.15  # a distance of the target's distribution that is worth a warning

NO_LIKENESS: dict[str, float | None] = {
    "correlation_difference": None,
    "nearest_distance": None,
    "nearest_distance_test": None,
    "copies": 0.0,
}


def statuses(answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the share of valid rows, that of each status, and the number of answers."""
    counts = Counter(answer["status"] for answer in answers)
    shares = {status: counts[status] / max(1, len(answers)) for status in STATUSES}
    return {"valid": shares["SUCCESS"], "statuses": shares, "n": len(answers)}


def _worth(
    synthetic: Sequence[Row], drawn: Sequence[Row], train: Sequence[Row], test: Sequence[Row], schema: Schema
) -> dict[str, Any]:
    """Return what models learn from the synthetic rows, the real rows, and rows drawn from those that prompts show.

    Returns:
        tstr, real, bootstrap: the main measure of gradient boosting trained on each of these, on the test rows.
        by_model: all measures, by what the model was trained on and by its kind.
    """
    sources = {"synthetic": synthetic, "real": train, "bootstrap": drawn}
    by_model = {name: trained_and_tested(rows, test, schema) for name, rows in sources.items()}
    main = {name: measures["gradient_boosting"][MAIN[schema.task]] for name, measures in by_model.items()}
    return {
        "tstr": main["synthetic"],
        "real": main["real"],
        "bootstrap": main["bootstrap"],
        "by_model": by_model,
    }
