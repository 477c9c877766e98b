"""Rows in answers: the first JSON object in a text, read by a schema."""

import ast
import json
from collections import Counter

from workflow_scripts.tasks.tabular.schemas import Row, Schema, convert, folded

# An answer gets one of these statuses, the best first. The rank decides preferences (SynFed's status_score).
STATUSES = {
    "SUCCESS": 5,
    "REDUNDANT_KEY": 3,
    "MISSING_KEY": 2,
    "CONVERSION_ERROR": 1,
    "INVALID_ANSWER": 0,
}


def extract(text: str, schema: Schema) -> tuple[str, Row | None]:
    """Return (status, row) of the first JSON object in an answer. The row is None unless the status is SUCCESS.

    Of several faults, the one with the lowest rank in STATUSES counts.
    """
    pairs = first_object(text)
    if pairs is None:
        return "INVALID_ANSWER", None

    counts = Counter(folded(key) for key, _ in pairs)
    values = {folded(key): value for key, value in reversed(pairs)}
    columns = {folded(column.name): column for column in schema.columns}
    faults = set()
    if set(counts) - set(columns) or max(counts.values(), default=0) > 1:
        faults.add("REDUNDANT_KEY")
    if set(columns) - set(counts):
        faults.add("MISSING_KEY")

    row: Row = {}
    for key, column in columns.items():
        if key in values:
            try:
                row[column.name] = convert(values[key], column)
            except ValueError:
                faults.add("CONVERSION_ERROR")

    if faults:
        return min(faults, key=lambda fault: STATUSES[fault]), None
    return "SUCCESS", row


def first_object(text: str) -> list[tuple[str, object]] | None:
    """Return the (key, value) pairs of the first {…} in a text, or None if there is none.

    The object may be JSON, or a Python literal (single quotes, None, a comma at the end).
    """
    start = text.find("{")
    if start < 0:
        return None

    objects: list[list[tuple[str, object]]] = []  # inner objects come before the ones that hold them

    def keep_pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
        objects.append(pairs)
        return dict(pairs)

    try:
        json.JSONDecoder(object_pairs_hook=keep_pairs, strict=False).raw_decode(text, start)
        return objects[-1]
    except (ValueError, RecursionError):  # not JSON, or a number of thousands of digits
        end = text.find("}", start)
        return _python_literal(text[start : end + 1])


def _python_literal(text: str) -> list[tuple[str, object]] | None:
    """Return the (key, value) pairs of a dict display, or None if the text is none."""
    try:
        display = ast.parse(text, mode="eval").body
        pairs = [
            (ast.literal_eval(key), ast.literal_eval(value))
            for key, value in zip(display.keys, display.values)  # type: ignore[attr-defined]
        ]
    except (SyntaxError, ValueError, AttributeError, TypeError, RecursionError, MemoryError):
        return None

    return [(key if isinstance(key, str) else "", value) for key, value in pairs]  # no column is named ""
