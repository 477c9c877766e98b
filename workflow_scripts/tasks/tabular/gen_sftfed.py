"""Write the data of the downstream task, by client: of real rows before the rounds, of synthetic rows in each round.

A task model is asked for the target of a row, after some examples or none. {table}_client_{i}.{split}.jsonl holds a
client's part (prompt, response), with one question for each of its rows. {table}_fold_{k}.jsonl is what a task model is
trained on, over all clients: fold_all asks about every real row, fold_0 and fold_1 about the synthetic rows that are in
the other fold.
"""

import argparse
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import write_jsonl
from workflow_scripts.core.running.cli import add_code_argument, arguments, run
from workflow_scripts.core.running.manifest import write_manifest
from workflow_scripts.tasks.tabular.questions import target_question
from workflow_scripts.tasks.tabular.schemas import Row, Schema, as_text, read_schema, read_table
from workflow_scripts.tasks.tabular.tables import candidates_of, fold_of, shared_out


@dataclass
class Questioner:
    """Asks about rows, with real rows as examples."""

    schema: Schema
    real: list[Row]
    shots: int

    def __post_init__(self):
        self.candidates = candidates_of(self.schema, self.real)

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


def folds_of(rows: list[Row]) -> dict[str, list[Row]]:
    """Return what the task models of both folds learn from: the rows that are in the other fold."""
    return {str(fold): [row for row in rows if fold_of(row) != fold] for fold in (0, 1)}


def parse_arguments() -> argparse.Namespace:
    parser = arguments(__doc__)
    add_code_argument(parser)
    parser.add_argument("--tables", required=True, help="folder of the real data set, as split_tables wrote it")
    parser.add_argument("--synthetic", help="the .csv of synthetic rows (default: ask about the real rows)")
    parser.add_argument("--shots", type=int, default=4, help="examples before a question, with one more at most")
    parser.add_argument("--clients", type=int, default=1, help="number of clients")
    parser.add_argument("--alpha", type=float, default=0.5, help="of the Dirichlet distribution of labels over clients")
    parser.add_argument("--task-rows", type=int, help="questions about real rows (default: one for each row)")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--output", required=True, help="folder to write")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    source = Path(args.tables)
    folder = Path(args.output)
    schema = read_schema(source / "schema.json")
    real = read_table(schema, source / "train.csv")
    questioner = Questioner(schema, real, args.shots)

    if args.synthetic:
        splits = {"train": read_table(schema, args.synthetic)}
        folds = folds_of(splits["train"])
    else:
        splits = {"train": real, "test": read_table(schema, source / "test.csv")}
        folds = {"all": real}
    if empty := [fold for fold, rows in folds.items() if not rows]:
        raise BadInput(
            f"{args.synthetic}: {len(splits['train'])} rows, none for fold {empty[0]} to learn from: the generator "
            "writes too few valid rows; train its cold start longer (tabular.examples), or sample more answers"
        )

    for split, rows in splits.items():
        shares = shared_out(rows, schema, args.clients, args.alpha, args.seed)
        for client, positions in enumerate(shares):
            own = [rows[position] for position in positions]
            questions = questioner.questions(own, len(own), f"{args.seed}.{split}.{client}")
            write_jsonl(folder / f"{schema.name}_client_{client}.{split}.jsonl", questions)

    sources = [source / "schema.json", source / "train.csv", source / "test.csv", *filter(None, [args.synthetic])]
    used = {
        "shots": args.shots,
        "clients": args.clients,
        "alpha": args.alpha,
        "task_rows": args.task_rows,
        "seed": args.seed,
    }
    counts = {}
    for fold, rows in folds.items():
        path = folder / f"{schema.name}_fold_{fold}.jsonl"
        counts[fold] = len(rows) if args.synthetic else args.task_rows or len(rows)
        write_jsonl(path, questioner.questions(rows, counts[fold], f"{args.seed}.{fold}"))
        write_manifest(path, sources, used, rows=counts[fold], different=len(set(map(as_text, rows))))

    print(f"{len(splits['train'])} rows over {args.clients} clients; examples by fold: {counts}")


if __name__ == "__main__":
    run(main)
