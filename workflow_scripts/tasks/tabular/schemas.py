"""Tables as text: what a CSV file's columns hold, its rows as JSON, and rows found in what a model wrote.

A schema comes from the CSV file and, where there is one, a YAML file beside it (X.yaml for X.csv) with any of `target`,
`task` and `columns: {name: {type, values, minimum, maximum, optional}}`. A row is {column: int, float, str or None}.
"""

import ast
import csv
import json
import math
import re
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Literal

import yaml
from pydantic import ConfigDict, NonNegativeInt, ValidationError, model_validator

from workflow_scripts.core.errors import BadInput, validation_message
from workflow_scripts.core.files import replacing
from workflow_scripts.config.sections import Section

MISSING = {"", "NA", "N/A", "n/a", "n.a.", "NaN", "nan", "NULL", "null", "None", "?", "-"}
# What becomes of an answer, the best first; a status counts as its rank in preferences (SynFed's status_score).
STATUSES = {"SUCCESS": 5, "REDUNDANT_KEY": 3, "MISSING_KEY": 2, "CONVERSION_ERROR": 1, "INVALID_ANSWER": 0}
DECIMALS = 4  # that numbers have at most, where the largest is not below 0.1
NUMERIC = 0.9  # of a column's cells are numbers: it is numeric, and rows with other cells are rejects
LABELS = 10  # an integer target with more values is a quantity
Row = dict[str, int | float | str | None]


class Column(Section):
    name: str
    type: Literal["integer", "number", "category", "text"]
    values: tuple[str, ...] = ()  # of a category
    minimum: int | float | None = None  # of an integer or number
    maximum: int | float | None = None
    optional: bool = False  # whether a cell may be empty
    decimals: NonNegativeInt = 0  # of a number

    @model_validator(mode="after")
    def has_what_its_type_has(self):
        numeric = self.type in ("integer", "number")
        if self.values and self.type != "category":
            raise ValueError(f"`values` are of a category, and the column's type is {self.type}")
        if not numeric and (self.minimum, self.maximum) != (None, None):
            raise ValueError(f"`minimum` and `maximum` are of numbers, and the column's type is {self.type}")
        if self.span[0] > self.span[1]:
            raise ValueError(f"`minimum` {self.minimum} is above `maximum` {self.maximum}")
        return self

    @property
    def span(self) -> tuple[float, float]:
        """The least and the most that a number may be, rounded as rows are."""
        ends = (-math.inf if self.minimum is None else self.minimum, math.inf if self.maximum is None else self.maximum)
        return tuple(round(float(end), self.decimals) for end in ends) if self.type == "number" else ends


class Beside(Section):
    """The YAML file beside a table: what its cells do not tell."""

    target: str | None = None
    task: Literal["classification", "regression"] | None = None
    columns: dict[str, dict | None] | None = None  # keys of Column


class Schema(Section):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    target: str
    task: Literal["classification", "regression"]
    columns: list[Column]

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)

    @property
    def labels(self) -> tuple[str, ...]:
        return self.column(self.target).values

    @property
    def features(self) -> list[str]:
        return [column.name for column in self.columns if column.name != self.target]


def folded(name: str) -> str:
    """A column's name as answers may spell it: case, white space, slashes and underscores do not count."""
    return re.sub(r"[\s/_]", "", name).casefold()


# ---------------------------------------------------------------- files


def read_csv(path: str | Path) -> tuple[list[str], list[list[str]]]:
    """(header, rows of cells as text); BadInput for a file without rows, and names that are empty or alike."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = [[cell.strip() for cell in line] for line in csv.reader(file, strict=True) if line]
    except (UnicodeDecodeError, IsADirectoryError, csv.Error) as error:
        raise BadInput(f"{path}: not a CSV file in UTF-8 ({error})") from None
    if len(lines) < 2:
        raise BadInput(f"{path}: a header and rows are needed, found {'a header alone' if lines else 'an empty file'}")
    if len(lines[0]) == 1 and (other := re.search(r"[;\t|]", lines[0][0])):
        raise BadInput(f"{path}: the columns of a CSV file are separated by commas, found {other[0]!r} in its header")
    seen: dict[str, str] = {}
    for number, name in enumerate(lines[0], 1):
        if not name:
            raise BadInput(f"{path}: column {number} has no name")
        if other := seen.get(folded(name)):
            raise BadInput(
                f"{path}: the columns {other!r} and {name!r} could not be told apart in an answer; rename one"
            )
        seen[folded(name)] = name
    return lines[0], lines[1:]


def write_csv(path: str | Path, schema: Schema, rows: list[Row]) -> None:
    names = [column.name for column in schema.columns]
    with replacing(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)  # its lines end in CRLF: with others it leaves a cell's own CR without quotes
        writer.writerow(names)
        writer.writerows(["" if row[name] is None else row[name] for name in names] for row in rows)


def read_table(schema: Schema, path: str | Path) -> list[Row]:
    """The rows of a CSV file that was written by this schema."""
    header, lines = read_csv(path) if Path(path).read_text().count("\n") > 1 else ([], [])
    found = [typed(schema, header, cells) for cells in lines]
    if bad := next((reason for _, reason in found if reason), None):
        raise BadInput(f"{path}: {bad}; it was edited by hand, or is of another schema")
    return [row for row, _ in found]


def read_schema(path: str | Path) -> Schema:
    return Schema.model_validate_json(Path(path).read_text())


# ---------------------------------------------------------------- a schema


def infer(name: str, path: str, header: list[str], lines: list[list[str]], target: str | None = None) -> Schema:
    """The schema of the table in `path`, with what the YAML file beside it says."""
    beside = Path(path).with_suffix(".yaml")
    given = read_beside(beside)
    target, task = target or given.target or header[-1], given.task
    said = {name: column or {} for name, column in (given.columns or {}).items()}
    for column in [target, *said]:
        if column not in header:
            raise BadInput(f"{path}: no column {column!r} among those used: {', '.join(header)}")
    columns = []
    for place, column in enumerate(header):
        cells = [cells[place] for cells in lines if len(cells) == len(header)]
        own = said.get(column, {})
        if "name" in own:
            raise BadInput(f"{beside}: column {column!r}: `name` is no key; a column is renamed in the table itself")
        labels = "values" in own or (column == target and task == "classification")
        wanted = own.get("type") or ("category" if labels else None)
        try:
            columns.append(Column.model_validate({"name": column} | kind_of(cells, wanted) | own))
        except ValidationError as error:
            raise BadInput(f"{beside}: column {column!r}: {validation_message(error)}") from None
    whole = [cells[header.index(target)] for cells in lines if len(cells) == len(header)]
    return with_task(name, path, target, task, columns, whole)


def read_beside(path: Path) -> Beside:
    """The YAML file of a table, empty if there is none."""
    try:
        return Beside.model_validate((yaml.safe_load(path.read_bytes()) if path.exists() else None) or {})
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not YAML ({error})") from None
    except ValidationError as error:
        raise BadInput(
            f"{path}: {validation_message(error)}; should be target, task and columns: {{name: {{type: …}}}}"
        ) from None


def kind_of(cells: list[str], wanted: str | None) -> dict:
    """{type, values, minimum, maximum, optional, decimals} of a column's cells; a type that is wanted is taken."""
    present = [cell for cell in cells if cell not in MISSING]
    found = {"optional": len(present) < len(cells)}
    numeric_cells = [cell for cell in present if number(cell) is not None]
    numbers, distinct = list(map(number, numeric_cells)), sorted(set(present))
    numeric = bool(numbers) and len(numbers) >= NUMERIC * len(present)
    kind = wanted or ("number" if numeric else "category" if len(distinct) <= max(20, len(cells) // 20) else "text")
    if kind == "number" and not wanted and all(value == int(value) for value in numbers):
        kind = "integer"
    if kind in ("integer", "number") and numbers:
        found |= {"minimum": min(numbers), "maximum": max(numbers)}
    match kind:
        case "number":
            largest = max((abs(value) for value in numbers if value), default=1.0)
            most = DECIMALS + max(0, math.floor(-math.log10(largest)))  # of a small quantity, as many that count
            written = [
                -Decimal(cell.strip()).as_tuple().exponent for cell, value in zip(numeric_cells, numbers) if value
            ]
            return found | {"type": kind, "decimals": min(most, max([1, *written]))}
        case "category":
            return found | {"type": kind, "values": distinct}
        case _:
            return found | {"type": kind}


def with_task(name: str, path: str, target: str, task: str | None, columns: list[Column], cells: list[str]) -> Schema:
    """The schema, once its target can be learnt: two labels, or a quantity; else BadInput."""
    place = next(i for i, column in enumerate(columns) if column.name == target)
    column = columns[place]
    distinct = sorted({found for cell in cells if (found := label(cell, column))}, key=lambda cell: (len(cell), cell))
    if len(distinct) < 2:
        skipped = sorted(set(cells) & MISSING - {""} - set(column.values))
        raise BadInput(
            f"{path}: the target {target!r} has {len(distinct) or 'no'} value, so there is nothing to learn"
            + (f" ({', '.join(skipped)} counts as missing, unless `values` has it)" if skipped else "")
        )
    if twins := [one for one in distinct if Counter(map(str.casefold, distinct))[one.casefold()] > 1]:
        raise BadInput(f"{path}: the target {target!r} has one label in two spellings: {', '.join(twins)}")
    few = column.type == "integer" and len(distinct) <= LABELS
    task = task or ("classification" if few or column.type == "category" else "regression")
    if task == "classification":
        as_label = {"type": "category", "minimum": None, "maximum": None}
        column = column.model_copy(update=as_label | {"values": column.values or tuple(distinct)})
    elif column.type not in ("integer", "number"):
        raise BadInput(f"{path}: the target {target!r} has {len(distinct)} different texts: neither label nor quantity")
    columns = [*columns[:place], column.model_copy(update={"optional": False}), *columns[place + 1 :]]
    if len(columns) < 2:
        raise BadInput(f"{path}: there is no column beside the target {target!r}")
    return Schema(name=name, target=target, task=task, columns=columns)


def label(cell: str, column: Column) -> str | None:
    """A target's cell in the one spelling that equal ones have in common; None if it has no value."""
    if cell in MISSING and cell not in column.values:
        return None
    if column.type in ("integer", "number"):
        value = number(cell)
        return None if value is None else str(int(value)) if value == int(value) else repr(value)
    try:
        return convert(cell, column)
    except ValueError:
        return None


def number(text: str) -> int | float | None:
    """A finite number, or None; whole numbers as they are, of any size. 1_0 and 007 are names, not numbers."""
    if "_" in text or re.match(r"\s*-?0\d", text):
        return None
    try:
        value = int(text) if re.fullmatch(r"\s*[-+]?\d{1,300}\s*", text) else float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


# ---------------------------------------------------------------- rows


def convert(value, column: Column, known: bool = True, within: bool = True) -> int | float | str | None:
    """A cell as its column has it; ValueError if it cannot be.

    `known`: a category must be one of the schema's, and only a cell that is optional may be empty. `within`: a number
    must lie in the column's range.
    """
    if value is None or (isinstance(value, str) and value.strip() in MISSING and value.strip() not in column.values):
        if column.optional or not known:
            return None
        raise ValueError(f"{column.name} is missing")
    if not isinstance(value, (str, int, float)) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"{column.name} should be one value, found {value!r:.40}")
    if column.type in ("integer", "number"):
        found = None if isinstance(value, bool) else number(str(value).strip())
        if found is None or (column.type == "integer" and found != int(found)):
            raise ValueError(
                f"{column.name} should be a{'n' * (column.type == 'integer')} {column.type}, found {value!r:.40}"
            )
        value = int(found) if column.type == "integer" else round(float(found), column.decimals) + 0.0  # -0.0 is 0.0
        least, most = column.span
        if within and not least <= value <= most:
            raise ValueError(f"{column.name} should be from {least} to {most}, found {value}")
        return value
    text = str(value).strip()
    text.encode()  # UnicodeEncodeError, a ValueError: half a surrogate pair
    if column.type == "text" or text in column.values:
        return text
    same = number(text)
    alike = [
        one for one in column.values if one.casefold() == text.casefold() or (same is not None and number(one) == same)
    ]
    if len(alike) == 1 or not known:
        return alike[0] if len(alike) == 1 else text
    raise ValueError(f"{column.name} should be one of {', '.join(column.values)}, found {value!r:.40}")


def typed(schema: Schema, header: list[str], cells: list[str], strict: bool = False) -> tuple[Row | None, str | None]:
    """(row, None), or (None, why it cannot be used).

    Unless `strict`, only a label has to be one that the schema knows: real rows may have what no answer may have.
    """
    if len(cells) != len(header):
        return None, f"{len(cells)} cells, the header has {len(header)}"
    if absent := [column.name for column in schema.columns if column.name not in header]:
        return None, f"no column {absent[0]!r}"
    try:
        values = dict(zip(header, cells))
        return {
            column.name: convert(values[column.name], column, strict or column.name == schema.target, strict)
            for column in schema.columns
        }, None
    except ValueError as error:
        return None, str(error)


def as_text(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False)


def extract(text: str, schema: Schema) -> tuple[str, Row | None]:
    """(status, row) of the first JSON object in an answer; the row is None unless the status is SUCCESS.

    Of several faults, the one with the lowest rank in STATUSES counts.
    """
    pairs = first_object(text)
    if pairs is None:
        return "INVALID_ANSWER", None
    keys = Counter(folded(str(key)) for key, _ in pairs)
    values = {folded(str(key)): value for key, value in reversed(pairs)}
    known = {folded(column.name): column for column in schema.columns}
    faults, row = set(), {}
    if set(keys) - set(known) or max(keys.values(), default=0) > 1:
        faults.add("REDUNDANT_KEY")
    if set(known) - set(keys):
        faults.add("MISSING_KEY")
    for key, column in known.items():
        if key in values:
            try:
                row[column.name] = convert(values[key], column)
            except ValueError:
                faults.add("CONVERSION_ERROR")
    return (min(faults, key=STATUSES.get), None) if faults else ("SUCCESS", row)


def first_object(text: str) -> list[tuple[str, object]] | None:
    """The (key, value) pairs of the first {…} in a text, as JSON or (with single quotes, None, a last comma) Python."""
    start, objects = text.find("{"), []
    if start < 0:
        return None
    decoder = json.JSONDecoder(object_pairs_hook=lambda pairs: objects.append(pairs) or dict(pairs), strict=False)
    try:
        decoder.raw_decode(text, start)
        return objects[-1]
    except (ValueError, RecursionError):  # no JSON, or a number of thousands of digits
        end = text.find("}", start)
    try:
        found = ast.parse(text[start : end + 1], mode="eval").body
        pairs = [(ast.literal_eval(key), ast.literal_eval(value)) for key, value in zip(found.keys, found.values)]
        return [(key if isinstance(key, str) else "", value) for key, value in pairs]  # "" is no column's name
    except (SyntaxError, ValueError, AttributeError, TypeError, RecursionError, MemoryError):
        return None
