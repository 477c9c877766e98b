"""The generator's data (r0_s1_gen_synsft): worked examples for its cold start, and the prompts of the rounds.

Each example asks for a row by its four most similar rows and the least similar one, in any order, and answers with the
row itself. Rows of every data set but the target's teach it (leave one out); rows of the target are asked for in the
prompts. Of a single data set, and with own_share, half of the target's training rows teach, and prompts ask for the
others: the generator has then seen the table, as it would have at the node that owns it.

Written into the folder: alpaca_train.json and alpaca_test.json (instruction, input, output), a DatasetDict with
question and response, and the prompts: train.jsonl, and eval.jsonl of every fifth row.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path

from workflow_scripts.core import tables
from workflow_scripts.core.running.cli import arguments, run, say
from workflow_scripts.config.load import settings_help
from workflow_scripts.core.running.manifest import write_manifest
from workflow_scripts.core.files import write_dataset, write_json, write_text
from workflow_scripts.core.identity import record_id
from workflow_scripts.tasks.tabular.schemas import Row, Schema, as_text, read_schema, read_table
from workflow_scripts.tasks.tabular.settings import Tabular
from workflow_scripts.tasks.tabular import answer_key, question

EVERY = 5  # this row is asked for in evaluation


def example(schema: Schema, rows: list[Row], answer: Row, rng: random.Random) -> dict:
    """One worked example: samples in any order, columns in any order that is the same in all of them."""
    columns = [column.name for column in schema.columns]
    rng.shuffle(columns)
    samples = [{name: row[name] for name in columns} for row in rng.sample(rows, len(rows))]
    written = as_text({name: answer[name] for name in columns})
    return {"question": question(samples, schema.target, schema.task), "response": f" {written}"}


def examples(schema: Schema, rows: list[Row], places: list[int], count: int, seed: str) -> Iterator[dict]:
    """`count` worked examples for the rows in `places`, over and over in new orders."""
    rng, around = random.Random(seed), list(tables.similar(rows, schema))
    order: list[int] = []
    for _ in range(count):
        order = order or rng.sample(places, len(places))
        place = order.pop()
        near, far = around[place]
        yield example(schema, [rows[i] for i in [*near, far]], rows[place], rng)


def prompts(schema: Schema, rows: list[Row], places: list[int], split: str, seed: int) -> Iterator[dict]:
    """What the rounds ask: for train four most similar rows and the least similar one, shuffled; for eval the five
    most similar ones in their order."""
    around = list(tables.similar(rows, schema, tables.SIMILAR + (split == "eval")))
    for place in places:
        near, far = around[place]
        shown = near if split == "eval" else [*near, far]
        if split == "train":
            random.Random(f"{seed}.{place}").shuffle(shown)
        text = question([rows[i] for i in shown], schema.target, schema.task)
        key = answer_key(schema, place, shown)
        yield {"id": record_id(text), "question": text, "answer": key, "level": schema.name}


def teachers_of(read: dict, settings: Tabular) -> tuple[dict, list[int]]:
    """({name: (schema, rows, places of the rows that teach)}, places of the target's rows that are asked for)."""
    teachers = {name: (*one, list(range(len(one[1])))) for name, one in read.items() if name != settings.dataset}
    schema, rows = read[settings.dataset]
    places = list(range(len(rows)))
    if teachers and not settings.own_share:
        return teachers, places
    say(f"half of the training rows of {settings.dataset} teach too, and the others are asked for")
    return teachers | {settings.dataset: (schema, rows, places[::2])}, places[1::2]


def shares_of(teachers: dict, settings: Tabular) -> dict[str, int]:
    """How many examples each data set gives: one a row; or of `examples` own_share, and the others the rest alike."""
    if not settings.examples:
        return {name: len(places) for name, (*_, places) in teachers.items()}
    others = len(teachers) - (settings.dataset in teachers)
    own = settings.own_share if others else 1.0
    weights = {name: own if name == settings.dataset else (1 - own) / others for name in teachers}
    return {name: round(weight * settings.examples) for name, weight in weights.items()}


def write_all(folder: Path, train: list[dict], test: list[dict]) -> None:
    """The examples for people's trainers: as Alpaca's JSON, and as a DatasetDict."""
    write_dataset(folder / "dataset", train=train, test=test)
    for split, rows in (("train", train), ("test", test)):
        as_alpaca = [{"instruction": row["question"], "input": "", "output": row["response"]} for row in rows]
        write_json(folder / f"alpaca_{split}.json", as_alpaca)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--tables", nargs="+", required=True, help="folders of data sets, as split_tables wrote them")
    parser.add_argument("--settings", required=True, help=settings_help("tabular"))
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    parser.add_argument("--output", required=True, help="folder to write")
    args = parser.parse_args()
    settings, folder = Tabular.model_validate_json(args.settings), Path(args.output)
    found = {Path(path).name: (read_schema(f"{path}/schema.json"), f"{path}/train.csv") for path in args.tables}
    read = {name: (schema, read_table(schema, path)) for name, (schema, path) in found.items()}
    schema, rows = read[settings.dataset]
    teachers, asked = teachers_of(read, settings)
    shares = shares_of(teachers, settings)
    train = [one for name, table in teachers.items() for one in examples(*table, shares[name], f"{args.seed}.{name}")]
    random.Random(f"{args.seed}.order").shuffle(train)
    splits = {"train": [p for p in asked if p % EVERY], "eval": [p for p in asked if not p % EVERY]}
    test = list(examples(schema, rows, asked, len(asked), f"{args.seed}.test"))
    write_all(folder, train, test)
    for split, places in splits.items():
        lines = [json.dumps(one, ensure_ascii=False) for one in prompts(schema, rows, places, split, args.seed)]
        write_text(folder / f"{split}.jsonl", "\n".join(lines) + "\n")
    sources = [path for folder_ in args.tables for path in (f"{folder_}/schema.json", f"{folder_}/train.csv")]
    counts = {"examples": len(train), "prompts": {split: len(places) for split, places in splits.items()}}
    used = settings.model_dump(mode="json", include={"dataset", "examples", "own_share"}) | {"seed": args.seed}
    for split in splits:
        write_manifest(folder / f"{split}.jsonl", sources, used, **counts)
    print(f"{len(train)} worked examples of {', '.join(teachers)}; prompts for {settings.dataset}: {counts['prompts']}")


if __name__ == "__main__":
    run(main)
