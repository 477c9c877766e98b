"""Make a data set ready: its schema, train.csv, test.csv, and rejects.jsonl with the rows that cannot be used.

A data set of three files has a val.csv too: its rows are held out from the generator and from task models.

The rows of a single file go to train or test by a digest of their cells, so that equal rows are on one side.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflow_scripts.config.load import settings_help
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import write_jsonl, write_text
from workflow_scripts.core.identity import digest
from workflow_scripts.core.records import conserve
from workflow_scripts.core.running.cli import add_code_argument, arguments, run, say
from workflow_scripts.core.running.manifest import write_manifest
from workflow_scripts.tasks.tabular.inference import infer, read_sidecar, sidecar_of
from workflow_scripts.tasks.tabular.schemas import (
    MISSING,
    Row,
    Schema,
    as_text,
    number,
    read_csv,
    typed_row,
    write_csv,
)
from workflow_scripts.tasks.tabular.settings import Table

Cells = list[str]


@dataclass
class Split:
    """The rows of a split as they stand in their source."""

    path: str  # the file, or the name of the data set
    header: Cells
    lines: dict[int, Cells]  # by their number in the source, from 1


# ---------------------------------------------------------------- reading


def shipped(name: str) -> tuple[Cells, list[Cells]]:
    """Return header and rows of a data set that scikit-learn ships, with names for labels and without units."""
    from sklearn import datasets

    options = {"scaled": False} if name == "diabetes" else {}
    loaded = getattr(datasets, f"load_{name}")(as_frame=True, **options)
    table = loaded.frame.rename(columns=lambda column: column.split(" (")[0].replace(" ", "_"))

    labels = getattr(loaded, "target_names", None)
    if labels is not None:
        table["target"] = [str(labels[code]) for code in table["target"]]

    return list(table), [[str(cell) for cell in row] for row in table.itertuples(index=False)]


def read_splits(table: Table, share: float, seed: int) -> dict[str, Split]:
    """Return the splits of a data set: `train`, `test` and, if it has such a file, `val`.

    `share` is the share of a single file's rows that become test rows.
    """
    if table.train and table.test:
        target = target_of(table, table.train)
        splits = {}
        files = {"train": table.train, "test": table.test} | ({"val": table.val} if table.val else {})
        for name, path in files.items():
            header, lines = choose_columns(path, *read_csv(path), table.columns, target)
            splits[name] = Split(path, header, dict(enumerate(lines, 1)))
        return splits

    path = table.file or f"scikit-learn's {table.sklearn}"
    header, lines = read_csv(path) if table.file else shipped(str(table.sklearn))
    header, lines = choose_columns(path, header, lines, table.columns, target_of(table, path))
    splits = {"train": Split(path, header, {}), "test": Split(path, header, {})}
    for position, cells in enumerate(lines, 1):
        splits["test" if is_test_row(cells, share, seed) else "train"].lines[position] = cells
    return splits


def target_of(table: Table, path: str) -> str | None:
    """Return the target that the config names, or else the YAML file beside the table."""
    return table.target or read_sidecar(sidecar_of(path)).target


def choose_columns(
    path: str, header: Cells, lines: list[Cells], features: Sequence[str] | None, target: str | None
) -> tuple[Cells, list[Cells]]:
    """Return header and rows with the chosen features and the target only. Rows of a wrong length stay as they are."""
    if features is None:
        return header, lines

    names = [*features, target or header[-1]]
    if repeated := [name for position, name in enumerate(names) if name in names[:position]]:
        raise BadInput(f"{path}: tabular.datasets: `columns` names {repeated[0]!r} twice, or it is the target")
    if absent := [name for name in names if name not in header]:
        raise BadInput(f"{path}: there is no column {absent[0]!r}, only {', '.join(header)}")

    positions = [header.index(name) for name in names]
    chosen = []
    for cells in lines:
        has_all = len(cells) == len(header)
        chosen.append([cells[position] for position in positions] if has_all else cells)
    return names, chosen


# ---------------------------------------------------------------- train or test


def is_test_row(cells: Cells, share: float, seed: int) -> bool:
    """Return whether a row goes to test: by its content, so that equal rows are on one side."""
    return int(digest([seed, list(map(plain, cells))]), 16) / 16**16 < share


def plain(cell: str) -> str:
    """Return a cell in the spelling that equal cells have in common: 1.0 as 1, a missing value as nothing."""
    value = number(cell)
    if value is None:
        return "" if cell.strip() in MISSING else cell.strip().casefold()
    return str(int(value)) if value == int(value) else repr(value)


# ---------------------------------------------------------------- rows and rejects


def read_rows(
    schema: Schema, split: Split, strict: bool, training_rows: set[str]
) -> tuple[list[Row], list[dict[str, Any]]]:
    """Return the rows of a split that can be used, and of the others their number and the reason.

    `training_rows` are texts of rows that are on the other side of the split already: cells that differ are on
    different sides, though rounding may make their rows equal.
    """
    rows: list[Row] = []
    rejects: list[dict[str, Any]] = []

    for position, cells in split.lines.items():
        row, reason = typed_row(schema, split.header, cells, strict)
        if row is not None and as_text(row) in training_rows:
            row, reason = None, "once rounded, it equals a training row"

        if row is None:
            rejects.append({"row": position, "reason": reason})
        else:
            rows.append(row)

    return rows, rejects


def write_split(
    folder: Path,
    name: str,
    schema: Schema,
    split: Split,
    rows: list[Row],
    rejects: list[dict[str, Any]],
    used: dict[str, Any],
) -> None:
    """Write the rows of a split with their manifest."""
    if not rows:
        reason = rejects[0]["reason"] if rejects else "there are no rows"
        raise BadInput(f"{split.path}: none of {len(split.lines)} rows for {name} can be used: {reason}")

    write_csv(folder / f"{name}.csv", schema, rows)
    sources = [split.path] if Path(split.path).exists() else []
    write_manifest(folder / f"{name}.csv", sources, used, rows=len(rows), rejects=len(rejects))

    first = f", first row {rejects[0]['row']}: {rejects[0]['reason']}" if rejects else ""
    say(f"{split.path}: {name} {len(rows)} rows, {len(rejects)} rejects{first}")


def parse_arguments() -> argparse.Namespace:
    parser = arguments(__doc__)
    add_code_argument(parser)
    parser.add_argument("--name", required=True, help="name of the data set")
    parser.add_argument("--settings", required=True, help=settings_help("tabular.datasets"))
    parser.add_argument("--test-share", type=float, default=0.25, help="share of a single file's rows for test")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the split")
    parser.add_argument("--output", required=True, help="folder for schema.json, train.csv and test.csv")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    table = Table.model_validate_json(args.settings)
    folder = Path(args.output)

    splits = read_splits(table, args.test_share, args.seed)
    train = splits["train"]
    schema = infer(args.name, train.path, train.header, list(train.lines.values()), table.target)
    types = ", ".join(f"{column.name} {column.type}" for column in schema.columns)
    say(f"{train.path}: {schema.task} of {schema.target!r}; {types}")
    write_text(folder / "schema.json", schema.model_dump_json(indent=1) + "\n")

    used = table.model_dump(mode="json") | {"seed": args.seed, "test_share": args.test_share}
    all_rejects: list[dict[str, Any]] = []
    training_rows: set[str] = set()
    for name, split in splits.items():
        rows, rejects = read_rows(schema, split, name == "train", training_rows)
        conserve(f"split_tables ({name})", len(split.lines), len(rows), len(rejects))
        write_split(folder, name, schema, split, rows, rejects, used)
        all_rejects += [{"split": name} | reject for reject in rejects]
        if not table.train:  # files that are split already stay as they are
            training_rows = set(map(as_text, rows))

    write_jsonl(folder / "rejects.jsonl", all_rejects)


if __name__ == "__main__":
    run(main)
