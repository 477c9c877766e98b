"""Select the prompts to train on from a scored pool (BLEUBERI's create_training_data, part two).

hard takes the lowest scores, easy the highest, medium the middle of the sorted list, random any.
"""

import random
from pathlib import Path

from workflow_scripts.core import shards
from workflow_scripts.core.running.cli import arguments, run
from workflow_scripts.config.load import settings_help
from workflow_scripts.core.running.manifest import write_manifest
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json, write_parquet
from workflow_scripts.core.records import read_records
from workflow_scripts.config.sections import Selection


def selected(scores: dict[str, float], mode: str, count: int, seed: int) -> list[str]:
    """The ids of `count` prompts, from the highest score to the lowest; equal scores in the order of their ids."""
    if count > len(scores):
        raise BadInput(f"selection.num_examples: {count} prompts asked, the pool has {len(scores)} that can be used")
    ordered = sorted(scores, key=lambda name: (-scores[name], name))
    match mode:
        case "hard":
            return ordered[len(ordered) - count :]
        case "easy":
            return ordered[:count]
        case "medium":
            start = (len(ordered) - count) // 2
            return ordered[start : start + count]
        case "random":
            chosen = set(random.Random(seed).sample(sorted(scores), count))
            return [name for name in ordered if name in chosen]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--pool", required=True, help="the frozen pool (.parquet)")
    parser.add_argument("--scores", required=True, help="what score_pool wrote (.json)")
    parser.add_argument("--settings", default="{}", help=settings_help("selection"))
    parser.add_argument("--seed", type=int, default=0, help="of mode random")
    parser.add_argument("--shards", type=int, default=1, help="number of digest files")
    parser.add_argument("--output", required=True, help="the train prompts to write (.parquet)")
    args = parser.parse_args()
    settings = Selection.model_validate_json(args.settings)
    scores, pool = read_json(args.scores), {record["id"]: record for record in read_records(args.pool)}
    values = {name: score["score"] for name, score in scores.items()}
    names = selected(values, settings.mode, settings.num_examples, args.seed)
    write_parquet(args.output, [pool[name] for name in names])
    used = settings.model_dump(mode="json", exclude={"inference"}) | {"seed": args.seed}
    made_of = [args.pool, args.scores]
    write_manifest(args.output, made_of, used, rows=len(names))
    folder = Path(args.output)
    shards.sync(folder.parent / "shards" / folder.stem, args.shards, folder)
    mean = sum(values[name] for name in names) / len(names)
    print(f"{len(names)} of {len(pool)} prompts ({settings.mode}), mean {settings.metric} {mean:.4f}")


if __name__ == "__main__":
    run(main)
