"""A table to test with: people, well and ill."""

import random
from pathlib import Path
from typing import Any

from workflow_scripts.tasks.tabular.inference import infer
from workflow_scripts.tasks.tabular.schemas import Row, Schema, typed_row

HEADER = ["Age", "blood pressure", "Pain/Type", "status"]


def schema_of(header: list[str], lines: list[list[str]], path: str | Path = "mine.csv", **options: Any) -> Schema:
    """Return the schema of a table."""
    return infer("mine", str(path), header, lines, **options)


def rows_of(schema: Schema, header: list[str], lines: list[list[str]], strict: bool = False) -> list[Row]:
    """Return the rows of a table, all of which must be usable."""
    rows = []
    for cells in lines:
        row, reason = typed_row(schema, header, cells, strict)
        assert row is not None, reason
        rows.append(row)
    return rows


def people(count: int = 60, seed: int = 0) -> list[list[str]]:
    """Return lines of a table in which age decides who is ill, and blood pressure follows."""
    rng = random.Random(seed)
    lines = []

    for _ in range(count):
        age = rng.randint(30, 70)
        is_ill = age > 50
        pressure = f"{rng.gauss(140 if is_ill else 115, 8):.1f}"
        pain = rng.choice(["none", 'Typical, "old"', "Ünüblich"])
        lines.append([str(age), pressure, pain, "ill" if is_ill else "well"])

    return lines


def table(count: int = 60, seed: int = 0) -> tuple[Schema, list[Row]]:
    """Return the schema and the rows of such a table."""
    lines = people(count, seed)
    schema = schema_of(HEADER, lines)
    return schema, rows_of(schema, HEADER, lines)
