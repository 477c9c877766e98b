"""Scripted rows of the task `tabular`: new valid rows, mixed from two real ones, and answers that are no rows."""

import itertools
import json
from functools import cache
from typing import Any

from workflow_scripts.core.records import Prompt
from workflow_scripts.tasks import defaults
from workflow_scripts.tasks.defaults import ScriptedAnswer
from workflow_scripts.tasks.tabular.schemas import Row, Schema, as_text, read_schema, read_table

EXAMPLES = 48  # of the cold start, and of the task model
PAIRS = 24  # of a round
CLUSTERS = 4
TABLES = 2  # that rows are written for


class Rehearsal(defaults.Rehearsal):
    """Valid rows, of which some are better than others, a row without most of its columns, and plain words."""

    @classmethod
    def smaller(cls, section: dict[str, Any]) -> dict[str, Any]:
        changes: dict[str, Any] = {"targets": section["targets"][:TABLES]} if section.get("targets") else {}
        return changes | {
            "examples": min(EXAMPLES, section.get("examples") or EXAMPLES),
            "task_rows": min(EXAMPLES, section.get("task_rows") or EXAMPLES),
            "num_clusters": min(CLUSTERS, section.get("num_clusters") or CLUSTERS),
            "pairs": min(PAIRS, section.get("pairs") or PAIRS),
        }

    @cache
    def table(self, level: str) -> tuple[Schema, list[Row]]:
        """Return the schema and the real training rows of the table that a prompt asks for, by its level."""
        suffix = "" if "schema" in self.files else f".{level}"
        schema = read_schema(self.files[f"schema{suffix}"])
        return schema, read_table(schema, self.files[f"train{suffix}"])

    def answers(self, prompt: Prompt) -> list[ScriptedAnswer]:
        schema, rows = self.table(prompt["level"])
        number: Any = prompt.get("row_number") or 0
        row = rows[number % len(rows)]
        further = rows[(number + 7) % len(rows)]
        name = schema.columns[0].name

        return [
            ScriptedAnswer([as_text(mixed(row, further))], True),
            ScriptedAnswer([json.dumps({name: row[name]})], False),
            ScriptedAnswer([as_text(mixed(further, row))], True),
            ScriptedAnswer([self.WRONG], False),
        ]


def mixed(row: Row, further: Row) -> Row:
    """Return a row with every other column of each of two rows; the target is the first row's."""
    columns = zip(row.items(), itertools.cycle((False, True)))
    result = {name: further[name] if is_other else value for (name, value), is_other in columns}
    target = list(row)[-1]
    return result | {target: row[target]}
