"""Data for the downstream task, by client (r0_s2_gen_sftfed of real rows, r{n}_s3_gen_sftfed_train of synthetic ones).

A task model is asked for the target of a row, after some examples or none. {name}_client_{i}.{split}.jsonl holds a
client's part (prompt, response), once for each row; {name}_fold_{k}.jsonl what a task model is trained on, over all
clients: fold_all every row, fold_0 and fold_1 the synthetic rows that the other fold scores.
"""

import random
from collections.abc import Iterator
from pathlib import Path

from workflow_scripts.core import tables
from workflow_scripts.core.running.cli import arguments, run
from workflow_scripts.config.load import settings_help
from workflow_scripts.core.running.manifest import write_manifest
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import write_jsonl
from workflow_scripts.tasks.tabular.schemas import Row, Schema, as_text, read_schema, read_table
from workflow_scripts.tasks.tabular.settings import Tabular
from workflow_scripts.tasks.tabular import task_question


def asked(
    schema: Schema, choices: list, rows: list[Row], examples: list[Row], shots: int, count: int, seed: str
) -> Iterator:
    """`count` questions about `rows`, over and over in new orders, after 0 to `shots` + 1 of the examples."""
    rng, order = random.Random(seed), []
    for _ in range(count):
        order = order or rng.sample(rows, len(rows))
        row = order.pop()
        shown = rng.sample(examples, min(len(examples), rng.randint(0, shots + 1)))
        before, after, gold = task_question(schema, choices, [one for one in shown if one != row], row)
        yield {"prompt": before + after, "response": f" {gold}"}


def write_lines(path: Path, records: Iterator[dict]) -> int:
    lines = list(records)
    write_jsonl(path, lines)
    return len(lines)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--tables", required=True, help="folder of the real data set, as split_tables wrote it")
    parser.add_argument("--synthetic", help="the .csv of synthetic rows; without it, the real rows")
    parser.add_argument("--settings", required=True, help=settings_help("tabular"))
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    parser.add_argument("--output", required=True, help="folder to write")
    args = parser.parse_args()
    settings, source, folder = Tabular.model_validate_json(args.settings), Path(args.tables), Path(args.output)
    schema = read_schema(source / "schema.json")
    real = read_table(schema, source / "train.csv")
    choices = tables.candidates(schema, real)
    splits = {"train": real, "test": read_table(schema, source / "test.csv")}
    folds = {"all": real}
    if args.synthetic:
        splits = {"train": read_table(schema, args.synthetic)}
        folds = {str(k): [row for row in splits["train"] if tables.fold_of(row) != k] for k in (0, 1)}
    if empty := [fold for fold, rows in folds.items() if not rows]:
        raise BadInput(
            f"{args.synthetic}: {len(splits['train'])} rows, none for fold {empty[0]} to learn from: the generator "
            "writes too few valid rows; train its cold start longer (tabular.examples), or ask for more answers"
        )
    for split, rows in splits.items():
        for client, places in enumerate(tables.shared_out(rows, schema, settings.clients, settings.alpha, args.seed)):
            own, seed = [rows[place] for place in places], f"{args.seed}.{split}.{client}"
            records = asked(schema, choices, own, real, settings.shots, len(own), seed)
            write_lines(folder / f"{schema.name}_client_{client}.{split}.jsonl", records)
    written = {}
    used = settings.model_dump(mode="json", include={"dataset", "clients", "alpha", "shots", "task_rows"})
    used |= {"seed": args.seed}
    for fold, rows in folds.items():
        path = folder / f"{schema.name}_fold_{fold}.jsonl"
        count = len(rows) if args.synthetic else settings.task_rows or len(rows)
        written[fold] = write_lines(
            path, asked(schema, choices, rows, real, settings.shots, count, f"{args.seed}.{fold}")
        )
        sources = [source / name for name in ("schema.json", "train.csv", "test.csv")]
        sources += [args.synthetic] if args.synthetic else []
        write_manifest(path, sources, used, rows=written[fold], different=len(set(map(as_text, rows))))
    print(f"{len(splits['train'])} rows over {settings.clients} clients; examples by fold: {written}")


if __name__ == "__main__":
    run(main)
