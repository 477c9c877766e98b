"""A data set as the tabular recipe uses it: schema, train.csv, test.csv, and the rows that cannot be used.

Of a single file, rows go to test by a digest of their cells, so that equal rows lie on one side.
"""

from pathlib import Path

from workflow_scripts.core import schemas
from workflow_scripts.core.running.cli import arguments, run, say
from workflow_scripts.core.running.manifest import write_manifest
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import write_jsonl, write_text
from workflow_scripts.core.identity import digest
from workflow_scripts.core.records import conserve
from workflow_scripts.tasks.tabular.settings import Table


def shipped(name: str) -> tuple[list[str], list[list[str]]]:
    """(header, cells) of a data set that scikit-learn ships; labels by their names, units left out."""
    from sklearn import datasets

    options = {"scaled": False} if name == "diabetes" else {}
    found = getattr(datasets, f"load_{name}")(as_frame=True, **options)
    table = found.frame.rename(columns=lambda column: column.split(" (")[0].replace(" ", "_"))
    labels = getattr(found, "target_names", None)
    if labels is not None:
        table["target"] = [str(labels[code]) for code in table["target"]]
    return list(table), [[str(cell) for cell in row] for row in table.itertuples(index=False)]


def chosen(path: str, header: list[str], lines: list, columns: list[str] | None, target: str | None) -> tuple:
    """(header, lines) of the chosen features and the target."""
    if columns is None:
        return header, lines
    wanted = [*columns, target or header[-1]]
    if twice := [name for number, name in enumerate(wanted) if name in wanted[:number]]:
        raise BadInput(f"{path}: tabular.datasets: columns has {twice[0]!r} twice, or it is the target")
    if absent := [name for name in wanted if name not in header]:
        raise BadInput(f"{path}: has no column {absent[0]!r}, only {', '.join(header)}")
    places = [header.index(name) for name in wanted]
    return wanted, [[cells[place] for place in places] if len(cells) == len(header) else cells for cells in lines]


def plain(cell: str) -> str:
    """A cell in the one way that equal cells have in common: 1.0 as 1, missing as empty."""
    value = schemas.number(cell)
    if value is None:
        return "" if cell.strip() in schemas.MISSING else cell.strip().casefold()
    return str(int(value)) if value == int(value) else repr(value)


def in_test(cells: list[str], share: float, seed: int) -> bool:
    """By the row's content, so that equal rows are on one side."""
    return int(digest([seed, list(map(plain, cells))]), 16) / 16**16 < share


def target_of(table: Table, path: str) -> str | None:
    """The target that the config names, or the YAML file beside the table."""
    return table.target or schemas.read_beside(Path(path).with_suffix(".yaml")).target


def read_splits(table: Table, share: float, seed: int) -> dict[str, tuple[str, list[str], dict[int, list[str]]]]:
    """{train, test: (path, header, {number of the row in its file: cells})}."""
    if table.train:
        found = {split: getattr(table, split) for split in ("train", "test")}
        target = target_of(table, table.train)
        read = {split: chosen(path, *schemas.read_csv(path), table.columns, target) for split, path in found.items()}
        return {split: (found[split], header, dict(enumerate(lines, 1))) for split, (header, lines) in read.items()}
    path = table.file or f"scikit-learn's {table.sklearn}"
    raw = schemas.read_csv(path) if table.file else shipped(table.sklearn)
    header, lines = chosen(path, *raw, table.columns, target_of(table, path))
    split = {"train": {}, "test": {}}
    for number, cells in enumerate(lines, 1):
        split["test" if in_test(cells, share, seed) else "train"][number] = cells
    return {name: (path, header, part) for name, part in split.items()}


def checked(schema: schemas.Schema, header: list[str], lines: dict[int, list[str]], strict: bool, known: set[str]):
    """{number of the row: (row, None) or (None, why it cannot be used)}; rows that are `known` are on the other side.

    The digests of cells put equal rows on one side, but not those that rounding makes equal.
    """
    found = {number: schemas.typed(schema, header, cells, strict) for number, cells in lines.items()}
    twin = (None, "once rounded, it equals a training row")
    return {number: twin if one[0] and schemas.as_text(one[0]) in known else one for number, one in found.items()}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--name", required=True, help="of the data set")
    parser.add_argument("--settings", required=True, help="one of the config's `tabular.datasets` as JSON")
    parser.add_argument("--test-share", type=float, default=0.25, help="of the rows of a single file")
    parser.add_argument("--seed", type=int, default=0, help="of the split")
    parser.add_argument("--output", required=True, help="folder for train.csv, test.csv and schema.json")
    args = parser.parse_args()
    table, folder = Table.model_validate_json(args.settings), Path(args.output)
    rejects, known = [], set()
    splits = read_splits(table, args.test_share, args.seed)
    path, header, lines = splits["train"]
    schema = schemas.infer(args.name, path, header, list(lines.values()), table.target)
    say(f"{path}: {schema.task} of {schema.target!r}; " + ", ".join(f"{c.name} {c.type}" for c in schema.columns))
    write_text(folder / "schema.json", schema.model_dump_json(indent=1) + "\n")
    for split, (path, header, lines) in splits.items():
        found = checked(schema, header, lines, split == "train", known)
        rows = [row for row, reason in found.values() if not reason]
        bad = [{"split": split, "row": n, "reason": reason} for n, (_, reason) in found.items() if reason]
        conserve(f"split_tables ({split})", len(lines), len(rows), len(bad))
        rejects += bad
        known = set() if table.train else set(map(schemas.as_text, rows))
        if not rows:
            raise BadInput(
                f"{path}: no row of {len(lines)} for {split} can be used: {bad[0]['reason'] if bad else 'no rows'}"
            )
        schemas.write_csv(folder / f"{split}.csv", schema, rows)
        sources = [path] if Path(path).exists() else []
        used = table.model_dump(mode="json") | {"seed": args.seed, "test_share": args.test_share}
        write_manifest(folder / f"{split}.csv", sources, used, rows=len(rows), rejects=len(bad))
        say(
            f"{path}: {split} {len(rows)} rows, {len(bad)} rejects"
            + (f", the first, row {bad[0]['row']}: {bad[0]['reason']}" if bad else "")
        )
    write_jsonl(folder / "rejects.jsonl", rejects)


if __name__ == "__main__":
    run(main)
