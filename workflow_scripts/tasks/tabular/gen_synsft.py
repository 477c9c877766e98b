"""Make the generator's data: worked examples for its cold start, and the prompts of the rounds.

Each example asks for a row by the four rows most similar to it and the least similar one, in any order, and answers
with the row itself. The rows of every data set but the targets' teach the generator (leave one out), and prompts ask
for rows of the targets. Without other data sets, and with own_share, half of a target's training rows teach, and
prompts ask for the other half: the generator has then seen the table, as it would have at the node that owns it.

The folder receives alpaca_train.json and alpaca_test.json (instruction, input, output), dataset/ (a DatasetDict with
question and response), and the prompts: train.jsonl, and eval.jsonl for every fifth row.
"""

import argparse
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflow_scripts.core.files import write_dataset, write_json, write_jsonl
from workflow_scripts.core.identity import record_id
from workflow_scripts.core.running.cli import add_code_argument, arguments, run, say
from workflow_scripts.core.running.manifest import write_manifest
from workflow_scripts.tasks.tabular.questions import row_question
from workflow_scripts.tasks.tabular.schemas import Row, Schema, as_text, read_schema, read_table
from workflow_scripts.tasks.tabular.tables import SIMILAR, similar

EVERY = 5  # prompts for evaluation ask for every fifth row


@dataclass
class Teacher:
    """A data set that teaches the generator how rows are written."""

    schema: Schema
    rows: list[Row]
    positions: Sequence[int]  # of the rows that teach


# ---------------------------------------------------------------- worked examples


def example(schema: Schema, samples: Sequence[Row], answer: Row, rng: random.Random) -> dict[str, str]:
    """Return a worked example. The samples come in any order, and columns in any order that is the same in all rows."""
    columns = list(schema.names)
    rng.shuffle(columns)
    shuffled = [{name: row[name] for name in columns} for row in rng.sample(samples, len(samples))]
    response = as_text({name: answer[name] for name in columns})
    return {"question": row_question(shuffled, schema.target, schema.task), "response": f" {response}"}


def examples(teacher: Teacher, count: int, seed: str) -> Iterator[dict[str, str]]:
    """Yield `count` worked examples for the rows that teach, over and over in new orders."""
    rng = random.Random(seed)
    neighbours = list(similar(teacher.rows, teacher.schema))
    order: list[int] = []

    for _ in range(count):
        order = order or rng.sample(teacher.positions, len(teacher.positions))
        position = order.pop()
        near, far = neighbours[position]
        samples = [teacher.rows[number] for number in (*near, far)]
        yield example(teacher.schema, samples, teacher.rows[position], rng)


def teachers_of(
    tables: dict[str, tuple[Schema, list[Row]]], targets: Sequence[str], own_share: float
) -> tuple[dict[str, Teacher], dict[str, Sequence[int]]]:
    """Return the data sets that teach, by name, and the positions of the targets' rows that prompts ask for."""
    teachers = {
        name: Teacher(schema, rows, range(len(rows))) for name, (schema, rows) in tables.items() if name not in targets
    }
    positions: dict[str, Sequence[int]] = {target: range(len(tables[target][1])) for target in targets}

    if teachers and not own_share:
        return teachers, positions

    say(f"half of the training rows of {', '.join(targets)} teach too, and prompts ask for the others")
    for target in targets:
        schema, rows = tables[target]
        teachers[target] = Teacher(schema, rows, positions[target][::2])
        positions[target] = positions[target][1::2]
    return teachers, positions


def counts_of(
    teachers: dict[str, Teacher], targets: Sequence[str], total: int | None, own_share: float
) -> dict[str, int]:
    """Return how many examples each data set gives: one for each row, or shares of `total`.

    The targets' data sets give `own_share` in equal parts, and the others give equal parts of the rest.
    """
    if not total:
        return {name: len(teacher.positions) for name, teacher in teachers.items()}

    others = len(set(teachers) - set(targets))
    own = (own_share if others else 1.0) / len(targets)
    shares = {name: own if name in targets else (1 - own * len(targets)) / others for name in teachers}
    return {name: round(share * total) for name, share in shares.items()}


# ---------------------------------------------------------------- prompts


def prompts(
    schema: Schema, rows: list[Row], positions: Sequence[int], split: str, seed: int
) -> Iterator[dict[str, Any]]:
    """Yield the prompts of a split.

    For train, a prompt shows the four most similar rows and the least similar one, shuffled; for eval the five most
    similar ones in order of similarity.
    """
    is_eval = split == "eval"
    neighbours = list(similar(rows, schema, SIMILAR + 1 if is_eval else SIMILAR))

    for position in positions:
        near, far = neighbours[position]
        shown = near if is_eval else [*near, far]
        if split == "train":
            random.Random(f"{seed}.{position}").shuffle(shown)

        question = row_question([rows[number] for number in shown], schema.target, schema.task)
        yield {
            "id": record_id(question),
            "question": question,
            "level": schema.name,
            "row_number": position,
            "examples": shown,
        }


# ---------------------------------------------------------------- the stage


def write_examples(folder: Path, train: list[dict[str, str]], test: list[dict[str, str]]) -> None:
    """Write the worked examples as a DatasetDict, and in Alpaca's format."""
    write_dataset(folder / "dataset", train=train, test=test)

    for split, rows in (("train", train), ("test", test)):
        as_alpaca = [{"instruction": row["question"], "input": "", "output": row["response"]} for row in rows]
        write_json(folder / f"alpaca_{split}.json", as_alpaca)


def parse_arguments() -> argparse.Namespace:
    parser = arguments(__doc__)
    add_code_argument(parser)
    parser.add_argument("--tables", nargs="+", required=True, help="folders of data sets, as split_tables wrote them")
    parser.add_argument("--dataset", nargs="+", required=True, help="names of the folders that rows are written for")
    parser.add_argument(
        "--examples", type=int, help="number of worked examples (default: one for each row that teaches)"
    )
    parser.add_argument("--own-share", type=float, default=0.0, help="share of them from these data sets")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--output", required=True, help="folder to write")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    folder = Path(args.output)
    tables = {}
    for path in map(Path, args.tables):
        schema = read_schema(path / "schema.json")
        tables[path.name] = schema, read_table(schema, path / "train.csv")

    teachers, positions = teachers_of(tables, args.dataset, args.own_share)
    counts = counts_of(teachers, args.dataset, args.examples, args.own_share)
    train = []
    for name, teacher in teachers.items():
        train += examples(teacher, counts[name], f"{args.seed}.{name}")
    random.Random(f"{args.seed}.order").shuffle(train)

    test: list[dict[str, str]] = []
    prompts_of: dict[str, list[dict[str, Any]]] = {"train": [], "eval": []}
    for target in args.dataset:
        schema, rows = tables[target]
        own = positions[target]
        test += examples(Teacher(schema, rows, own), len(own), f"{args.seed}.test")
        members = {
            "train": [position for position in own if position % EVERY],
            "eval": [position for position in own if not position % EVERY],
        }
        for split in prompts_of:
            prompts_of[split] += prompts(schema, rows, members[split], split, args.seed)
    write_examples(folder, train, test)

    sizes = {split: len(records) for split, records in prompts_of.items()}
    sources = [path for table in args.tables for path in (f"{table}/schema.json", f"{table}/train.csv")]
    target = args.dataset if len(args.dataset) > 1 else args.dataset[0]
    used = {"dataset": target, "examples": args.examples, "own_share": args.own_share, "seed": args.seed}
    for split, records in prompts_of.items():
        write_jsonl(folder / f"{split}.jsonl", records)
        write_manifest(folder / f"{split}.jsonl", sources, used, examples=len(train), prompts=sizes)

    print(f"{len(train)} worked examples from {', '.join(teachers)}; prompts for {', '.join(args.dataset)}: {sizes}")


if __name__ == "__main__":
    run(main)
