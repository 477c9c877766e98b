"""Schemas from CSV files: types, categories and ranges follow from the cells.

A YAML file beside the table (X.yaml for X.csv) has the last word. Its keys are `target`, `task` and
`columns: {name: {type, values, minimum, maximum, optional}}`, all of them optional.
"""

import math
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from workflow_scripts.config.sections import Section
from workflow_scripts.core.errors import BadInput, validation_message
from workflow_scripts.tasks.tabular.schemas import MISSING, Column, Schema, TableTask, convert, number

NUMERIC = 0.9  # a column is numeric if this share of its cells are numbers; rows with other cells become rejects
CATEGORIES = 20  # a column of texts with more different ones, and more than one for 20 rows, is free text
LABELS = 10  # an integer target with more different values is a quantity
DECIMALS = 4  # numbers have at most this many, if the largest is not below 0.1


class Sidecar(Section):
    """The YAML file beside a table: what its cells do not tell."""

    target: str | None = None
    task: TableTask | None = None
    columns: dict[str, dict[str, Any] | None] | None = None  # column → keys of Column


def sidecar_of(path: str | Path) -> Path:
    """Return the path of the YAML file beside a table."""
    return Path(path).with_suffix(".yaml")


def read_sidecar(path: Path) -> Sidecar:
    """Read the YAML file beside a table. A file that does not exist counts as empty."""
    try:
        values = yaml.safe_load(path.read_bytes()) if path.exists() else None
        return Sidecar.model_validate(values or {})
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not YAML ({error})") from None
    except ValidationError as error:
        known = "target, task and columns: {name: {type: …}}"
        raise BadInput(f"{path}: {validation_message(error)}; its keys should be {known}") from None


def infer(
    name: str, path: str, header: Sequence[str], lines: Sequence[Sequence[str]], target: str | None = None
) -> Schema:
    """Return the schema of a table.

    Args:
        name: the table's name.
        path: the CSV file, for messages and for the YAML file beside it.
        header: the names of the columns that are used.
        lines: the rows as cells of text. Rows of another length than the header are ignored.
        target: the target; by default the one that the YAML file names, else the last column.
    """
    sidecar = read_sidecar(sidecar_of(path))
    target = target or sidecar.target or header[-1]
    own_keys = {column: keys or {} for column, keys in (sidecar.columns or {}).items()}

    for column in (target, *own_keys):
        if column not in header:
            raise BadInput(f"{path}: there is no column {column!r} among those used: {', '.join(header)}")

    cells_of = {
        column: [cells[position] for cells in lines if len(cells) == len(header)]
        for position, column in enumerate(header)
    }
    columns = []
    for column, cells in cells_of.items():
        is_label = column == target and sidecar.task == "classification"
        columns.append(_column(column, cells, own_keys.get(column, {}), is_label, sidecar_of(path)))

    return _with_task(name, path, target, sidecar.task, columns, cells_of[target])


def _column(name: str, cells: Sequence[str], own_keys: dict[str, Any], is_label: bool, sidecar: Path) -> Column:
    """Return a column by its cells, with the keys that the YAML file gives it."""
    if "name" in own_keys:
        raise BadInput(f"{sidecar}: column {name!r}: there is no key `name`; rename the column in the table itself")

    is_category = is_label or "values" in own_keys
    wanted = own_keys.get("type") or ("category" if is_category else None)
    try:
        return Column.model_validate({"name": name} | kind_of(cells, wanted) | own_keys)
    except ValidationError as error:
        raise BadInput(f"{sidecar}: column {name!r}: {validation_message(error)}") from None


def kind_of(cells: Sequence[str], wanted: str | None) -> dict[str, Any]:
    """Return {type, values, minimum, maximum, optional, decimals} of a column, without what its type does not have.

    `wanted` is a type that is taken whatever the cells are.
    """
    present = [cell for cell in cells if cell not in MISSING]
    numbers = {cell: value for cell in present if (value := number(cell)) is not None}
    kind = wanted or _type_of(cells, present, numbers)
    keys: dict[str, Any] = {"type": kind, "optional": len(present) < len(cells)}

    if kind in ("integer", "number") and numbers:
        keys["minimum"] = min(numbers.values())
        keys["maximum"] = max(numbers.values())
    if kind == "number":
        keys["decimals"] = _decimals_of(numbers)
    if kind == "category":
        keys["values"] = sorted(set(present))

    return keys


def _type_of(cells: Sequence[str], present: Sequence[str], numbers: dict[str, int | float]) -> str:
    """Return the type that the cells of a column suggest."""
    numeric_cells = [cell for cell in present if cell in numbers]

    if numbers and len(numeric_cells) >= NUMERIC * len(present):
        are_whole = all(value == int(value) for value in numbers.values())
        return "integer" if are_whole else "number"

    return "category" if len(set(present)) <= max(CATEGORIES, len(cells) // CATEGORIES) else "text"


def _decimals_of(numbers: dict[str, int | float]) -> int:
    """Return how many decimals a column needs: those that are written, at most DECIMALS, more for small quantities."""
    values = {cell: value for cell, value in numbers.items() if value}
    largest = max(map(abs, values.values()), default=1.0)
    most = DECIMALS + max(0, math.floor(-math.log10(largest)))
    written = [-int(Decimal(cell.strip()).as_tuple().exponent) for cell in values]
    return min(most, max([1, *written]))


# ---------------------------------------------------------------- the target


def _with_task(
    name: str, path: str, target: str, task: TableTask | None, columns: list[Column], cells: Sequence[str]
) -> Schema:
    """Return the schema. Raise BadInput if its target cannot be learnt: it needs two labels, or a quantity."""
    position = next(i for i, column in enumerate(columns) if column.name == target)
    column = columns[position]
    labels = _labels(path, column, cells)
    is_count = column.type == "integer" and len(labels) <= LABELS
    task = task or ("classification" if is_count or column.type == "category" else "regression")

    changes: dict[str, Any] = {"optional": False}
    if task == "classification":
        changes |= {
            "type": "category",
            "minimum": None,
            "maximum": None,
            "values": column.values or tuple(labels),
        }
    elif not column.is_numeric:
        raise BadInput(
            f"{path}: the target {target!r} has {len(labels)} different texts: neither labels nor a quantity"
        )

    if len(columns) < 2:
        raise BadInput(f"{path}: there is no column beside the target {target!r}")

    columns = [*columns[:position], column.model_copy(update=changes), *columns[position + 1 :]]
    return Schema(name=name, target=target, task=task, columns=columns)


def _labels(path: str, column: Column, cells: Sequence[str]) -> list[str]:
    """Return the different values of a target, sorted. Raise BadInput if there is nothing to tell apart."""
    distinct = {label for cell in cells if (label := _label(cell, column))}
    labels = sorted(distinct, key=lambda label: (len(label), label))

    if len(labels) < 2:
        skipped = sorted(set(cells) & MISSING - {""} - set(column.values))
        note = f" ({', '.join(skipped)} counts as missing, unless `values` has it)" if skipped else ""
        count = len(labels) or "no"
        raise BadInput(f"{path}: the target {column.name!r} has {count} value, so there is nothing to learn{note}")

    spellings = Counter(label.casefold() for label in labels)
    if alike := [label for label in labels if spellings[label.casefold()] > 1]:
        raise BadInput(f"{path}: the target {column.name!r} has one label in two spellings: {', '.join(alike)}")

    return labels


def _label(cell: str, column: Column) -> str | None:
    """Return a target's cell in the spelling that equal ones have in common; None if it has no value."""
    if cell in MISSING and cell not in column.values:
        return None

    if column.is_numeric:
        value = number(cell)
        if value is None:
            return None
        return str(int(value)) if value == int(value) else repr(value)

    try:
        return convert(cell, column)  # type: ignore[return-value]  (a column of texts)
    except ValueError:
        return None
