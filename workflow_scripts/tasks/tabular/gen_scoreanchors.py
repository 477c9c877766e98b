"""The anchors that rows are scored by (r0_s3_gen_scoreanchors): the real rows nearest to the centres of KMeans.

OUTPUT.csv holds the anchors. Beside it, X_prompts.json holds what a task model is asked of each, `ds0`: {before, after,
gold}; a synthetic row stands as one more example between the two (`ds1`). Examples are of the other training rows, one
of each cluster in turn, and the same for all anchors, so that the text before the row is read once.
"""

import random
from pathlib import Path

import numpy as np

from workflow_scripts.core import tables
from workflow_scripts.core.running.cli import arguments, run, say
from workflow_scripts.config.load import settings_help
from workflow_scripts.core.running.manifest import write_manifest
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import write_json
from workflow_scripts.core.identity import digest
from workflow_scripts.tasks.tabular.schemas import Row, Schema, read_schema, read_table, write_csv
from workflow_scripts.tasks.tabular.settings import Tabular
from workflow_scripts.tasks.tabular import nearest, task_question


def examples(rows: list[Row], schema: Schema, anchors: list[Row], count: int, seed: int) -> list[Row]:
    """`count` rows, none of which equals an anchor, from the clusters in turn."""
    if not count:
        return []
    taken = {digest(anchor) for anchor in anchors}
    left = [row for row in rows if digest(row) not in taken]
    if len(left) < count:
        raise BadInput(f"tabular.shots: {count} asked, {schema.name} has {len(left)} training rows beside the anchors")
    distinct = len(np.unique(tables.encoded(left, schema), axis=0))  # KMeans sees no free text
    _, groups = tables.clusters(left, schema, min(count, distinct), seed)
    rng = random.Random(f"{seed}.shots")
    order = rng.sample(range(len(left)), len(left))
    turn = {}  # how often the row's cluster came before
    ranks = []
    for place in order:
        turn[groups[place]] = turn.get(groups[place], -1) + 1
        ranks.append((turn[groups[place]], len(ranks), place))
    return [left[place] for *_, place in sorted(ranks)[:count]]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--tables", required=True, help="folder of the data set, as split_tables wrote it")
    parser.add_argument("--settings", required=True, help=settings_help("tabular"))
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    parser.add_argument("--output", required=True, help="the .csv of anchors to write")
    args = parser.parse_args()
    settings, folder = Tabular.model_validate_json(args.settings), Path(args.tables)
    schema = read_schema(folder / "schema.json")
    rows = read_table(schema, folder / "train.csv")
    pool = rows if settings.anchors == "train" else read_table(schema, folder / "test.csv")
    anchors = [pool[place] for place in tables.clusters(pool, schema, settings.num_clusters, args.seed)[0]]
    choices = tables.candidates(schema, rows)
    if len({nearest(schema, choices, row) for row in anchors}) < 2:
        say(f"{args.output}: all anchors have one {schema.target!r}, so no row can gain: raise tabular.num_clusters")
    shots = examples(rows, schema, anchors, settings.shots, args.seed)
    write_csv(args.output, schema, anchors)
    asked = [dict(zip(("before", "after", "gold"), task_question(schema, choices, shots, row))) for row in anchors]
    scale = tables.spread(schema, rows)
    found = {"task": schema.task, "candidates": choices, "scale": scale, "ds0": asked}
    write_json(Path(args.output).with_name(f"{schema.name}_prompts.json"), found)
    sources = [folder / "schema.json", folder / "train.csv", folder / "test.csv"]
    used = settings.model_dump(mode="json", include={"dataset", "num_clusters", "anchors", "shots"})
    used |= {"seed": args.seed}
    write_manifest(args.output, sources, used, rows=len(anchors), shots=len(shots))
    print(f"{len(anchors)} anchors of {len(pool)} {settings.anchors} rows, {len(shots)} examples before each")


if __name__ == "__main__":
    run(main)
