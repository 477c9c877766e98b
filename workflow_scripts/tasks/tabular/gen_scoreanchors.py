"""Choose the anchors that rows are scored by: the real rows nearest to the centres of KMeans.

OUTPUT.csv holds the anchors. Beside it, {table}_prompts.json holds what a task model is asked about each anchor, `ds0`:
{before, after, reference}. A synthetic row stands as one more example between the two texts (`ds1`). The examples are
other training rows, one of each cluster in turn. They are the same for all anchors, so that the text before the
synthetic row is read once. `shares` holds the share of each label among the training rows.
"""

import argparse
import random
from pathlib import Path

import numpy as np

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import write_json
from workflow_scripts.core.identity import digest
from workflow_scripts.core.running.cli import add_code_argument, arguments, run, say
from workflow_scripts.core.running.manifest import write_manifest
from workflow_scripts.tasks.tabular.questions import nearest_candidate, target_question
from workflow_scripts.tasks.tabular.schemas import Row, Schema, read_schema, read_table, write_csv
from workflow_scripts.tasks.tabular.tables import candidates_of, clusters, encoded, label_shares, spread_of


def examples_beside(anchors: list[Row], rows: list[Row], schema: Schema, count: int, seed: int) -> list[Row]:
    """Return `count` training rows from the clusters in turn, none of which equals an anchor."""
    if not count:
        return []

    of_anchors = {digest(anchor) for anchor in anchors}
    others = [row for row in rows if digest(row) not in of_anchors]
    if len(others) < count:
        raise BadInput(
            f"tabular.shots: {count} requested, but {schema.name} has {len(others)} training rows beside the anchors"
        )

    distinct = len(np.unique(encoded(others, schema), axis=0))  # KMeans does not see free text
    _, cluster_of = clusters(others, schema, min(count, distinct), seed)
    order = random.Random(f"{seed}.shots").sample(range(len(others)), len(others))
    turns: dict[int, int] = {}  # how many rows of each cluster came before
    ranked = []
    for number, position in enumerate(order):
        cluster = cluster_of[position]
        turns[cluster] = turns.get(cluster, -1) + 1
        ranked.append((turns[cluster], number, position))

    return [others[position] for _, _, position in sorted(ranked)[:count]]


def parse_arguments() -> argparse.Namespace:
    parser = arguments(__doc__)
    add_code_argument(parser)
    parser.add_argument("--tables", required=True, help="folder of the data set, as split_tables wrote it")
    parser.add_argument("--num-clusters", type=int, default=10, help="number of anchors")
    parser.add_argument("--anchors", choices=("train", "test"), default="train", help="split that anchors come from")
    parser.add_argument("--shots", type=int, default=4, help="examples before each anchor")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--output", required=True, help="the .csv of anchors to write")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    folder = Path(args.tables)
    schema = read_schema(folder / "schema.json")
    rows = read_table(schema, folder / "train.csv")
    pool = rows if args.anchors == "train" else read_table(schema, folder / "test.csv")

    positions, _ = clusters(pool, schema, args.num_clusters, args.seed)
    anchors = [pool[position] for position in positions]
    candidates = candidates_of(schema, rows)
    if len({nearest_candidate(schema, candidates, anchor) for anchor in anchors}) < 2:
        say(f"{args.output}: all anchors have one {schema.target!r}, so no row can gain; raise tabular.num_clusters")

    examples = examples_beside(anchors, rows, schema, args.shots, args.seed)
    questions = [target_question(schema, candidates, examples, anchor) for anchor in anchors]
    write_csv(args.output, schema, anchors)
    write_json(
        Path(args.output).with_name(f"{schema.name}_prompts.json"),
        {
            "task": schema.task,
            "candidates": candidates,
            "scale": spread_of(schema, rows),
            "shares": label_shares(schema, rows),
            "ds0": [question._asdict() for question in questions],
        },
    )

    sources = [folder / "schema.json", folder / "train.csv", folder / "test.csv"]
    used = {"num_clusters": args.num_clusters, "anchors": args.anchors, "shots": args.shots, "seed": args.seed}
    write_manifest(args.output, sources, used, rows=len(anchors), shots=len(examples))
    print(f"{len(anchors)} anchors of {len(pool)} {args.anchors} rows, {len(examples)} examples before each")


if __name__ == "__main__":
    run(main)
