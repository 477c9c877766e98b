"""Schemas of tables: what each column holds, cells as values, and CSV files that follow a schema.

A row is {column: int, float, str or None}.
"""

import csv
import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, NonNegativeInt, model_validator

from workflow_scripts.config.sections import Section
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import replacing

MISSING = {"", "NA", "N/A", "n/a", "n.a.", "NaN", "nan", "NULL", "null", "None", "?", "-"}  # cells without a value

Value = int | float | str | None
Row = dict[str, Value]
TableTask = Literal["classification", "regression"]


class Column(Section):
    """The type and the permitted values of a column."""

    name: str
    type: Literal["integer", "number", "category", "text"]
    values: tuple[str, ...] = ()  # of a category
    minimum: int | float | None = None  # of an integer or a number
    maximum: int | float | None = None
    optional: bool = False  # whether a cell may be empty
    decimals: NonNegativeInt = 0  # of a number

    @model_validator(mode="after")
    def has_what_its_type_has(self):
        if self.values and self.type != "category":
            raise ValueError(f"`values` belong to a category, and the column's type is {self.type}")
        if not self.is_numeric and (self.minimum, self.maximum) != (None, None):
            raise ValueError(f"`minimum` and `maximum` belong to numbers, and the column's type is {self.type}")
        if self.span[0] > self.span[1]:
            raise ValueError(f"`minimum` {self.minimum} is above `maximum` {self.maximum}")
        return self

    @property
    def is_numeric(self) -> bool:
        return self.type in ("integer", "number")

    @property
    def span(self) -> tuple[float, float]:
        """The least and the greatest value of a number, rounded as rows are."""
        least = -math.inf if self.minimum is None else self.minimum
        greatest = math.inf if self.maximum is None else self.maximum

        if self.type == "number":
            return round(float(least), self.decimals), round(float(greatest), self.decimals)
        return least, greatest


class Schema(Section):
    """The columns of a table, and which of them is to be predicted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    target: str
    task: TableTask
    columns: list[Column]

    def column(self, name: str) -> Column:
        """Return the column of this name."""
        return next(column for column in self.columns if column.name == name)

    @property
    def names(self) -> list[str]:
        """The names of all columns, in order."""
        return [column.name for column in self.columns]

    @property
    def features(self) -> list[str]:
        """The names of all columns but the target."""
        return [name for name in self.names if name != self.target]

    @property
    def labels(self) -> tuple[str, ...]:
        """The values of the target, if it is a category."""
        return self.column(self.target).values


def folded(name: str) -> str:
    """Return a column's name as answers may spell it: case, white space, slashes and underscores do not count."""
    return re.sub(r"[\s/_]", "", name).casefold()


# ---------------------------------------------------------------- cells and rows


def number(text: str) -> int | float | None:
    """Return the finite number that a text is, or None. Whole numbers of any size stay exact.

    1_0 and 007 are names, not numbers.
    """
    if "_" in text or re.match(r"\s*-?0\d", text):
        return None

    try:
        value = int(text) if re.fullmatch(r"\s*[-+]?\d{1,300}\s*", text) else float(text)
    except ValueError:
        return None

    return value if math.isfinite(value) else None


def convert(value: Any, column: Column, known: bool = True, within: bool = True) -> Value:
    """Return a cell as its column holds it. Raise ValueError if the column cannot hold it.

    Args:
        value: the text of a cell, or a value from an answer's JSON.
        column: the cell's column.
        known: a category must be one of the schema's, and a cell may be empty only if the column is optional.
        within: a number must lie within the column's range.
    """
    if _is_missing(value, column):
        if column.optional or not known:
            return None
        raise ValueError(f"{column.name} is missing")

    is_infinite = isinstance(value, float) and not math.isfinite(value)
    if is_infinite or not isinstance(value, str | int | float):
        raise ValueError(f"{column.name} should be one value, found {value!r:.40}")

    return _as_number(value, column, within) if column.is_numeric else _as_text(value, column, known)


def _is_missing(value: Any, column: Column) -> bool:
    if not isinstance(value, str):
        return value is None
    return value.strip() in MISSING and value.strip() not in column.values


def _as_number(value: str | int | float, column: Column, within: bool) -> int | float:
    parsed = None if isinstance(value, bool) else number(str(value).strip())

    if parsed is None or (column.type == "integer" and parsed != int(parsed)):
        article = "an" if column.type == "integer" else "a"
        raise ValueError(f"{column.name} should be {article} {column.type}, found {value!r:.40}")

    result = int(parsed) if column.type == "integer" else round(float(parsed), column.decimals) + 0.0  # -0.0 is 0.0
    least, greatest = column.span
    if within and not least <= result <= greatest:
        raise ValueError(f"{column.name} should be from {least} to {greatest}, found {result}")

    return result


def _as_text(value: str | int | float, column: Column, known: bool) -> str:
    text = str(value).strip()
    text.encode()  # raises UnicodeEncodeError, a ValueError, for half of a surrogate pair
    if column.type == "text" or text in column.values:
        return text

    as_number = number(text)
    alike = []
    for label in column.values:
        is_same_number = as_number is not None and number(label) == as_number
        if label.casefold() == text.casefold() or is_same_number:
            alike.append(label)

    if len(alike) == 1:
        return alike[0]
    if known:
        raise ValueError(f"{column.name} should be one of {', '.join(column.values)}, found {value!r:.40}")
    return text


def typed_row(
    schema: Schema, header: Sequence[str], cells: Sequence[str], strict: bool = False
) -> tuple[Row | None, str | None]:
    """Return (row, None), or (None, the reason why the cells cannot be used).

    Unless `strict`, only the label of a row has to be one that the schema knows: real rows may have values that no
    answer may have.
    """
    if len(cells) != len(header):
        return None, f"{len(cells)} cells, but the header has {len(header)}"
    if absent := [name for name in schema.names if name not in header]:
        return None, f"there is no column {absent[0]!r}"

    values = dict(zip(header, cells))
    row = {}
    for column in schema.columns:
        is_known = strict or column.name == schema.target
        try:
            row[column.name] = convert(values[column.name], column, known=is_known, within=strict)
        except ValueError as error:
            return None, str(error)

    return row, None


def as_text(row: Row) -> str:
    """Return a row as models read and write it: as JSON."""
    return json.dumps(row, ensure_ascii=False)


# ---------------------------------------------------------------- files


def read_schema(path: str | Path) -> Schema:
    """Read a schema.json."""
    return Schema.model_validate_json(Path(path).read_text())


def read_csv(path: str | Path) -> tuple[list[str], list[list[str]]]:
    """Return the header of a CSV file and its rows as cells of text.

    Raise BadInput for a file without rows, and for names of columns that are empty or alike.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = [[cell.strip() for cell in line] for line in csv.reader(file, strict=True) if line]
    except (UnicodeDecodeError, IsADirectoryError, csv.Error) as error:
        raise BadInput(f"{path}: not a CSV file in UTF-8 ({error})") from None

    if len(lines) < 2:
        state = "only a header" if lines else "an empty file"
        raise BadInput(f"{path}: a table needs a header and rows, found {state}")

    header = lines[0]
    if len(header) == 1 and (separator := re.search(r"[;\t|]", header[0])):
        raise BadInput(f"{path}: commas should separate the columns, found {separator[0]!r} in the header")
    _check_names(path, header)

    return header, lines[1:]


def _check_names(path: str | Path, header: list[str]) -> None:
    names: dict[str, str] = {}  # by folded name

    for position, name in enumerate(header, 1):
        if not name:
            raise BadInput(f"{path}: column {position} has no name")
        if other := names.get(folded(name)):
            raise BadInput(f"{path}: an answer cannot tell the columns {other!r} and {name!r} apart; rename one")
        names[folded(name)] = name


def write_csv(path: str | Path, schema: Schema, rows: Iterable[Row]) -> None:
    """Write rows as a CSV file."""
    with replacing(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)  # lines end in CRLF: with other ends it leaves a CR within a cell without quotes
        writer.writerow(schema.names)
        for row in rows:
            writer.writerow(["" if row[name] is None else row[name] for name in schema.names])


def read_table(schema: Schema, path: str | Path) -> list[Row]:
    """Return the rows of a CSV file that was written by this schema. The file may have no rows."""
    has_rows = Path(path).read_text().count("\n") > 1
    header, lines = read_csv(path) if has_rows else ([], [])
    rows = []

    for cells in lines:
        row, reason = typed_row(schema, header, cells)
        if row is None:
            raise BadInput(f"{path}: {reason}; the file was edited by hand, or belongs to another schema")
        rows.append(row)

    return rows
