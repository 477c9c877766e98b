"""Write the data of the downstream task, by client: of real rows before the rounds, of synthetic rows in each round.

A task model is asked for the target of a row, after some examples or none. Each file holds {prompt, response}:

    {table}_fold_{k}.jsonl               what the task model of a fold learns from, if there is one client: fold_all
                                         about real rows, fold_0 and fold_1 about the synthetic rows of the other fold
    {table}_client_{i}.train.jsonl       what client i learns from before the rounds: its own real rows
    {table}_client_{i}.train_{k}.jsonl   the same in a round, by fold
    {table}_client_{i}.test.jsonl        questions about the client's test rows, and about rows that are held out from
    {table}_client_{i}.val.jsonl         training: those of the table's val file, and the share --held-out of train rows

A client's questions have its own real rows as examples. Held-out rows are never shown.
"""

import argparse
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import write_jsonl
from workflow_scripts.core.identity import digest
from workflow_scripts.core.running.cli import add_code_argument, arguments, run
from workflow_scripts.core.running.manifest import write_manifest
from workflow_scripts.tasks.tabular.questions import target_question
from workflow_scripts.tasks.tabular.schemas import Row, Schema, as_text, read_schema, read_table
from workflow_scripts.tasks.tabular.tables import candidates_of, fold_of, shared_out

SPLIT_METHODS = ("none", "iid", "dirichlet")


@dataclass
class Questioner:
    """Asks about rows, with real rows as examples."""

    schema: Schema
    candidates: list[str]
    real: Sequence[Row]
    shots: int

    def questions(self, rows: Sequence[Row], count: int, seed: str) -> Iterator[dict[str, str]]:
        """Yield `count` questions about rows, over and over in new orders, after 0 to `shots` + 1 examples."""
        rng = random.Random(seed)
        order: list[Row] = []

        for _ in range(count):
            order = order or rng.sample(rows, len(rows))
            row = order.pop()
            drawn = rng.sample(self.real, min(len(self.real), rng.randint(0, self.shots + 1)))
            examples = [example for example in drawn if example != row]
            question = target_question(self.schema, self.candidates, examples, row)
            yield {"prompt": question.before + question.after, "response": f" {question.reference}"}


# ---------------------------------------------------------------- which rows


def is_held_out(row: Row, share: float, seed: int) -> bool:
    """Return whether a training row is held out from task models: by its content, so that equal rows are alike."""
    return bool(share) and int(digest(["held_out", seed, row]), 16) / 16**16 < share


def folds_of(rows: list[Row]) -> dict[str, list[Row]]:
    """Return what the task models of both folds learn from: the rows that are in the other fold."""
    return {str(fold): [row for row in rows if fold_of(row) != fold] for fold in (0, 1)}


def client_rows(rows: Sequence[Row], schema: Schema, args: argparse.Namespace, split: str) -> list[list[Row]]:
    """Return each client's rows of a split. A client has the same share of a label in all splits and rounds.

    Synthetic rows are no client's secret: if there are fewer than clients, several clients have the same one.
    """
    if args.split_method == "none":
        return [list(rows) for _ in range(args.clients)]
    if args.synthetic and len(rows) < args.clients:
        return [[rows[client % len(rows)]] for client in range(args.clients)]

    alpha = None if args.split_method == "iid" else args.alpha
    shares = shared_out(rows, schema, args.clients, alpha, args.shares_seed, f"{args.seed}.{split}")
    return [[rows[position] for position in positions] for positions in shares]


def real_rows_of_clients(rows: Sequence[Row], schema: Schema, args: argparse.Namespace) -> list[list[Row]]:
    """Return each client's real training rows, which are the same in all rounds."""
    before_rounds = argparse.Namespace(**vars(args) | {"synthetic": None, "seed": args.shares_seed})
    return client_rows(rows, schema, before_rounds, "train")


# ---------------------------------------------------------------- the stage


class Writer:
    """Writes files of questions with their manifests."""

    def __init__(self, args: argparse.Namespace, schema: Schema):
        source = Path(args.tables)
        files = [source / name for name in ("schema.json", "train.csv", "test.csv", "val.csv")]
        self.sources = [*(file for file in files if file.exists()), *filter(None, [args.synthetic])]
        self.used = {name: getattr(args, name) for name in USED}
        self.stem = f"{args.output}/{schema.name}"

    def write(self, name: str, questioner: Questioner, rows: Sequence[Row], count: int, seed: str) -> None:
        """Write `count` questions about rows into the file {table}_{name}.jsonl."""
        path = f"{self.stem}_{name}.jsonl"
        write_jsonl(path, questioner.questions(rows, count, seed))
        write_manifest(path, self.sources, self.used, rows=count, different=len(set(map(as_text, rows))))


USED = ("shots", "clients", "split_method", "alpha", "task_rows", "held_out", "seed", "shares_seed")


def parse_arguments() -> argparse.Namespace:
    parser = arguments(__doc__)
    add_code_argument(parser)
    parser.add_argument("--tables", required=True, help="folder of the real data set, as split_tables wrote it")
    parser.add_argument("--synthetic", help="the .csv of synthetic rows (default: ask about the real rows)")
    parser.add_argument("--shots", type=int, default=4, help="examples before a question, with one more at most")
    parser.add_argument("--clients", type=int, default=1, help="number of clients")
    parser.add_argument("--split-method", choices=SPLIT_METHODS, default="dirichlet", help="how rows are shared out")
    parser.add_argument("--alpha", type=float, default=0.5, help="of the Dirichlet distribution of labels over clients")
    parser.add_argument("--task-rows", type=int, help="questions about real rows (default: one for each row)")
    parser.add_argument("--held-out", type=float, default=0.0, help="share of the train rows that is held out")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--shares-seed", type=int, default=0, help="random seed of what is the same in all rounds")
    parser.add_argument("--output", required=True, help="folder to write")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    source = Path(args.tables)
    schema = read_schema(source / "schema.json")
    train = read_table(schema, source / "train.csv")
    held_out = [row for row in train if is_held_out(row, args.held_out, args.shares_seed)]
    real = [row for row in train if not is_held_out(row, args.held_out, args.shares_seed)]
    if not real:
        raise BadInput(f"tabular.held_out {args.held_out}: no training row of {schema.name} is left to learn from")

    folds = folds_of(read_table(schema, args.synthetic)) if args.synthetic else {"all": real}
    if empty := [fold for fold, rows in folds.items() if not rows]:
        raise BadInput(
            f"{args.synthetic}: {sum(map(len, folds.values()))} rows, none for fold {empty[0]} to learn from: the "
            "generator writes too few valid rows; train its cold start longer (tabular.examples), or sample more "
            "answers"
        )

    writer = Writer(args, schema)
    own_rows = real_rows_of_clients(real, schema, args)
    questioners = [Questioner(schema, candidates_of(schema, train), own, args.shots) for own in own_rows]
    for fold, rows in folds.items():
        write_training(writer, questioners, fold, rows, args, schema)

    if not args.synthetic:
        val = read_table(schema, source / "val.csv") if (source / "val.csv").exists() else []
        for split, rows in (("test", read_table(schema, source / "test.csv")), ("val", val + held_out)):
            if rows:
                write_check(writer, questioners, split, rows, args, schema)
            elif args.held_out:
                raise BadInput(
                    f"tabular.held_out {args.held_out}: too small a share of {len(train)} rows of {schema.name}"
                )

    sizes = {fold: len(rows) for fold, rows in folds.items()}
    print(f"rows by fold: {sizes}; {args.clients} clients with {[len(own) for own in own_rows]} real rows")


def write_training(
    writer: Writer, questioners: list[Questioner], fold: str, rows: list[Row], args: argparse.Namespace, schema: Schema
) -> None:
    """Write what the task models of a fold learn from: one file, or one for each client."""
    total = len(rows) if args.synthetic else args.task_rows or len(rows)
    if len(questioners) == 1:
        writer.write(f"fold_{fold}", questioners[0], rows, total, f"{args.seed}.{fold}")
        if args.synthetic:
            return

    parts = client_rows(rows, schema, args, "train" if fold == "all" else f"train_{fold}")
    for client, (questioner, own) in enumerate(zip(questioners, parts)):
        name = f"client_{client}.train" if fold == "all" else f"client_{client}.train_{fold}"
        count = max(1, round(total * len(own) / len(rows)))
        writer.write(name, questioner, own, count, f"{args.seed}.{name}")


def write_check(
    writer: Writer, questioners: list[Questioner], split: str, rows: list[Row], args: argparse.Namespace, schema: Schema
) -> None:
    """Write questions that task models are measured by: one about each row, at the client that has it."""
    parts = client_rows(rows, schema, args, split) if len(rows) >= args.clients else [rows, *[[]] * (args.clients - 1)]
    for client, (questioner, own) in enumerate(zip(questioners, parts)):
        writer.write(f"client_{client}.{split}", questioner, own, len(own), f"{args.seed}.{split}.{client}")


if __name__ == "__main__":
    run(main)
