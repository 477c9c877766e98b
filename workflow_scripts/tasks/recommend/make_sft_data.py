"""Make the cold start's rows and the rounds' prompts from a teacher's dialogues.

A row of the cold start has `prompt` and `response` as messages (recommend.explore.train_only_interaction), else
`messages`. The seeker's turns are masked later, like all that is not the assistant's. The prompts of the rounds are the
beginnings of the explored dialogues. With recommend.tgi or recommend.new_tgi, they go on with the teacher's first
interactions.

    python -m workflow_scripts.tasks.recommend.make_sft_data --settings '{"explore": {}}' \\
        --explored runs/recommend-tiny/explore/recommend-tiny_base_turn.jsonl \\
        --pool runs/recommend-tiny/prompts/pool.parquet --sft /tmp/sft.jsonl --output /tmp/train.parquet
"""

import argparse
import json
import random
from pathlib import Path
from typing import Any

from workflow_scripts.config.load import settings_help
from workflow_scripts.core import shards
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import write_jsonl, write_parquet
from workflow_scripts.core.records import Message, conserve, read_records
from workflow_scripts.core.running.cli import (
    add_code_argument,
    add_shards_arguments,
    arguments,
    numbers_of_shards,
    run,
)
from workflow_scripts.core.running.manifest import write_manifest
from workflow_scripts.tasks.recommend.dialogues import transcript
from workflow_scripts.tasks.recommend.settings import Settings

OF_TEACHER = ("interaction", "rec_success", "base_turn")  # fields of a pool's prompts that are none of the rounds'

Record = dict[str, Any]


def sft_row(line: Record, prompt: Record, only_interaction: bool) -> Record:
    """Return a teacher's dialogue as a row of the cold start."""
    if only_interaction:
        return {"id": line["id"], "prompt": prompt["messages"], "response": line["generated_dialog"]}
    return {"id": line["id"], "messages": prompt["messages"] + line["generated_dialog"]}


def taught_messages(line: Record, settings: Settings, turns: int, seed: int) -> list[Message]:
    """Return the teacher's first messages, with which a rollout starts.

    They leave `turns` interactions up to the teacher's hit. With new_tgi they are a random part of that, and each
    dialogue draws from its own seed. A dialogue that begins with some of the teacher's interactions already (TART's
    …_last2interaction.json) has fewer left than its base_turn.
    """
    left = sum(message["role"] == "assistant" for message in line["generated_dialog"])
    most = max(0, min(line["base_turn"], left) - turns)

    if settings.new_tgi:
        most = random.Random(f"{seed}.{line['id']}").randint(0, most)
    elif not settings.tgi:
        most = 0

    return line["generated_dialog"][: 2 * most]


def train_prompts(
    lines: list[Record], pool: dict[str, Record], settings: Settings, turns: int, seed: int
) -> list[Record]:
    """Return the prompts from recommend.start to recommend.end, each begun by the teacher where that is asked for."""
    prompts = []

    for line in lines[settings.start : settings.end]:
        prompt = pool[line["id"]]
        taught = taught_messages(line, settings, turns, seed)
        dialog = prompt["dialog"] + taught
        longer = {"question": transcript(dialog), "messages": prompt["messages"] + taught, "dialog": dialog}
        own = {name: value for name, value in prompt.items() if name not in OF_TEACHER}
        prompts.append(own | longer)

    return prompts


def read_lines(path: str, pool_path: str) -> tuple[list[Record], dict[str, Record]]:
    """Return the teacher's dialogues and the pool's prompts by id. Raise BadInput if a prompt is missing."""
    pool = {prompt["id"]: prompt for prompt in read_records(pool_path)}
    lines = list(read_records(path))

    unknown = [line["id"] for line in lines if line["id"] not in pool]
    if unknown:
        raise BadInput(f"{path}: {unknown[0]} is not in {pool_path}; explore it again")

    return lines, pool


def parse_arguments() -> argparse.Namespace:
    parser = arguments(__doc__)
    add_code_argument(parser)
    parser.add_argument("--explored", required=True, help="the teacher's dialogues with base_turn (.jsonl)")
    parser.add_argument("--pool", required=True, help="the frozen prompts that were explored (.parquet)")
    parser.add_argument(
        "--settings",
        type=json.loads,
        required=True,
        help=settings_help("recommend", "explore", "tgi", "new_tgi", "start", "end"),
    )
    parser.add_argument(
        "--turns", type=int, default=2, help="interactions of a rollout (generate.auto.turns), for tgi and new_tgi"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed of new_tgi")
    add_shards_arguments(parser)
    parser.add_argument("--sft", required=True, help="the cold start's rows to write (.jsonl)")
    parser.add_argument("--output", required=True, help="the train prompts to write (.parquet)")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    settings = Settings.model_validate(args.settings)
    explore = settings.explore
    if not explore:
        raise BadInput("--settings: recommend.explore says what is learnt from the teacher's dialogues; give it")

    lines, pool = read_lines(args.explored, args.pool)
    kept = [line for line in lines if line["rec_success"] or not explore.only_success]
    if not kept:
        raise BadInput(
            f"{args.explored}: none of {len(lines)} dialogues was successful: there is nothing to learn from"
        )
    prompts = train_prompts(lines, pool, settings, args.turns, args.seed)
    if not prompts:
        raise BadInput(f"recommend.start: {settings.start} leaves none of {len(lines)} explored dialogues")

    inputs = [args.explored, args.pool]
    used = dict(args.settings)
    if settings.tgi or settings.new_tgi:
        used["turns"] = args.turns
    if settings.new_tgi:
        used["seed"] = args.seed
    unsuccessful = sum(not line["rec_success"] for line in lines) if explore.only_success else 0
    conserve("make_sft_data", len(lines), len(kept), unsuccessful)
    write_jsonl(args.sft, [sft_row(line, pool[line["id"]], explore.train_only_interaction) for line in kept])
    write_manifest(args.sft, inputs, used, rows=len(kept), unsuccessful=unsuccessful)

    write_parquet(args.output, prompts)
    write_manifest(args.output, inputs, used, rows=len(prompts))
    output = Path(args.output)
    shards.sync(output.parent / "shards" / output.stem, numbers_of_shards(args), output)
    print(f"{len(kept)} of {len(lines)} dialogues to learn from; {len(prompts)} prompts for the rounds")


if __name__ == "__main__":
    run(main)
