"""Select the prompts to train on from a scored pool (BLEUBERI's create_training_data, part two).

The modes are hard (the lowest scores), easy (the highest), medium (the middle of the sorted list) and random.
"""

import random
from pathlib import Path

from workflow_scripts.core import shards
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json, write_parquet
from workflow_scripts.core.records import read_records
from workflow_scripts.core.running.cli import (
    add_code_argument,
    add_shards_arguments,
    arguments,
    numbers_of_shards,
    run,
)
from workflow_scripts.core.running.manifest import write_manifest
from workflow_scripts.tasks.defaults import mean

MODES = ("hard", "easy", "medium", "random")


def select(scores: dict[str, float], mode: str, count: int, seed: int) -> list[str]:
    """Return the ids of `count` prompts, from the highest score to the lowest; equal scores in the order of their ids.

    `seed` determines the prompts of mode random. Raise BadInput if there are too few prompts.
    """
    if count > len(scores):
        raise BadInput(
            f"reference.selection.num_examples: {count} prompts requested, the pool has {len(scores)} that can be used"
        )

    ordered = sorted(scores, key=lambda prompt_id: (-scores[prompt_id], prompt_id))

    if mode == "random":
        chosen = set(random.Random(seed).sample(sorted(scores), count))
        return [prompt_id for prompt_id in ordered if prompt_id in chosen]

    start = {"easy": 0, "medium": (len(ordered) - count) // 2, "hard": len(ordered) - count}[mode]
    return ordered[start : start + count]


def main() -> None:
    parser = arguments(__doc__)
    add_code_argument(parser)
    parser.add_argument("--pool", required=True, help="the frozen pool (.parquet)")
    parser.add_argument("--scores", required=True, help="the scores that score_pool wrote (.json)")
    parser.add_argument("--mode", choices=MODES, default="hard", help="which prompts to select")
    parser.add_argument("--num-examples", type=int, required=True, help="number of prompts to select")
    parser.add_argument("--seed", type=int, default=0, help="random seed of mode random")
    add_shards_arguments(parser)
    parser.add_argument("--output", required=True, help="the train prompts to write (.parquet)")
    args = parser.parse_args()

    pool = {record["id"]: record for record in read_records(args.pool)}
    scored = read_json(args.scores)
    scores = {prompt_id: value["score"] for prompt_id, value in scored.items()}
    selected = select(scores, args.mode, args.num_examples, args.seed)
    metric = scored[selected[0]]["metric"]

    write_parquet(args.output, [pool[prompt_id] for prompt_id in selected])
    used = {"mode": args.mode, "num_examples": args.num_examples, "metric": metric, "seed": args.seed}
    write_manifest(args.output, [args.pool, args.scores], used, rows=len(selected))
    output = Path(args.output)
    shards.sync(output.parent / "shards" / output.stem, numbers_of_shards(args), output)

    average = mean(scores[prompt_id] for prompt_id in selected)
    print(f"{len(selected)} of {len(pool)} prompts ({args.mode}), mean {metric} {average:.4f}")


if __name__ == "__main__":
    run(main)
