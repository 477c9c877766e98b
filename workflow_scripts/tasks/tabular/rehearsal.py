"""Scripted rows of the task `tabular`: new valid rows, mixed from two real ones, and answers that are no rows."""

import itertools
import json
from functools import cached_property
from typing import Any

from workflow_scripts.core.records import Prompt
from workflow_scripts.tasks import defaults
from workflow_scripts.tasks.defaults import ScriptedAnswer
from workflow_scripts.tasks.tabular.schemas import Row, Schema, as_text, read_schema, read_table

EXAMPLES = 48  # of the cold start, and of the task model
PAIRS = 24  # of a round
CLUSTERS = 4


class Rehearsal(defaults.Rehearsal):
    """Valid rows, of which some are better than others, a row without most of its columns, and plain words."""

    @classmethod
    def smaller(cls, section: dict[str, Any]) -> dict[str, Any]:
        return {
            "examples": min(EXAMPLES, section.get("examples") or EXAMPLES),
            "task_rows": min(EXAMPLES, section.get("task_rows") or EXAMPLES),
            "num_clusters": min(CLUSTERS, section.get("num_clusters") or CLUSTERS),
            "pairs": min(PAIRS, section.get("pairs") or PAIRS),
        }

    @cached_property
    def schema(self) -> Schema:
        return read_schema(self.files["schema"])

    @cached_property
    def rows(self) -> list[Row]:
        """The real training rows."""
        return read_table(self.schema, self.files["train"])

    def answers(self, prompt: Prompt) -> list[ScriptedAnswer]:
        number = prompt.get("row_number") or 0
        row = self.rows[number % len(self.rows)]  # type: ignore[operator]
        further = self.rows[(number + 7) % len(self.rows)]  # type: ignore[operator]
        name = self.schema.columns[0].name

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
