"""From a teacher's dialogues to what the cold start learns from, and to the prompts that the rounds learn on.

The cold start's rows are `prompt` and `response` (recommend.explore.train_only_interaction) or `messages`, as messages;
the seeker's turns are masked later, as all that is not the assistant's. Prompts are the explored dialogues' beginnings;
with recommend.tgi or new_tgi they go on with the first of the teacher's interactions. By hand:

    python -m workflow_scripts.make_sft_data --task recommend --environment '{"explore": {}}' \\
        --explored runs/recommend-tiny/explore/recommend-tiny_base_turn.jsonl \\
        --pool runs/recommend-tiny/prompts/pool.parquet --sft /tmp/sft.jsonl --output /tmp/train.parquet
"""

import json
import random
from pathlib import Path

from workflow_scripts import tasks
from workflow_scripts.core import shards
from workflow_scripts.core.running.cli import arguments, run
from workflow_scripts.config.load import settings_help
from workflow_scripts.tasks.recommend.settings import Recommend
from workflow_scripts.core.running.manifest import write_manifest
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import write_jsonl, write_parquet
from workflow_scripts.core.records import conserve, read_records


def sft_row(line: dict, prompt: list[dict], only_interaction: bool) -> dict:
    if only_interaction:
        return {"id": line["id"], "prompt": prompt, "response": line["generated_dialog"]}
    return {"id": line["id"], "messages": prompt + line["generated_dialog"]}


def taught(line: dict, settings: dict, turns: int, seed: int) -> list[dict]:
    """The teacher's first messages, with which a rollout starts: what leaves `turns` interactions up to its hit, or
    with new_tgi a random part of that; each dialogue draws from its own seed."""
    most = max(0, line["base_turn"] - turns)
    if settings["new_tgi"]:
        most = random.Random(f"{seed}.{line['id']}").randint(0, most)
    return line["generated_dialog"][: 2 * most] if settings["tgi"] or settings["new_tgi"] else []


def train_prompts(lines: list[dict], pool: dict[str, dict], settings: dict, turns: int, seed: int) -> list[dict]:
    """The dialogues from start to end, each begun by the teacher where the settings ask for it."""
    prompts = []
    for line in lines[settings["start"] : settings["end"]]:
        record, start = pool[line["id"]], taught(line, settings, turns, seed)
        question = json.loads(record["question"])
        question["dialog"] += start
        prompts.append(record | {"question": json.dumps(question, ensure_ascii=False)} if start else record)
    return prompts


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--task", required=True, help="a module of workflow_scripts/tasks")
    parser.add_argument("--explored", required=True, help="what add_base_turn wrote (.jsonl)")
    parser.add_argument("--pool", required=True, help="the frozen prompts that were explored (.parquet)")
    parser.add_argument("--environment", required=True, help=settings_help("recommend"))
    parser.add_argument("--turns", type=int, default=2, help="interactions of a rollout (generate.auto.turns)")
    parser.add_argument("--seed", type=int, default=0, help="of new_tgi")
    parser.add_argument("--shards", type=int, default=1, help="number of digest files")
    parser.add_argument("--sft", required=True, help="the cold start's rows to write (.jsonl)")
    parser.add_argument("--output", required=True, help="the train prompts to write (.parquet)")
    args = parser.parse_args()
    task = tasks.load(args.task)
    settings = Recommend.model_validate_json(args.environment).model_dump(mode="json")
    if not (explore := settings["explore"]):
        raise BadInput("--environment: recommend.explore says what is learnt of what was explored; give it")
    pool = {record["id"]: record for record in read_records(args.pool)}
    lines = list(read_records(args.explored))
    if unknown := [line["id"] for line in lines if line["id"] not in pool]:
        raise BadInput(f"{args.explored}: {unknown[0]} is not in {args.pool}; explore it again")

    kept = [line for line in lines if line["rec_success"] or not explore["only_success"]]
    if not kept:
        raise BadInput(f"{args.explored}: none of {len(lines)} dialogues was successful: nothing to learn from")
    conserve(
        "make_sft_data", len(lines), len(kept), sum(not line["rec_success"] for line in lines) * explore["only_success"]
    )
    asked = {line["id"]: task.requests(pool[line["id"]]["question"], "auto")["auto"] for line in kept}
    write_jsonl(args.sft, [sft_row(line, asked[line["id"]], explore["train_only_interaction"]) for line in kept])
    used = {key: settings[key] for key in ("tgi", "new_tgi", "start", "end")} | {"seed": args.seed, "turns": args.turns}
    used |= {"explore": {key: explore[key] for key in ("only_success", "train_only_interaction")}}
    write_manifest(args.sft, [args.explored, args.pool], used, rows=len(kept), unsuccessful=len(lines) - len(kept))

    prompts = train_prompts(lines, pool, settings, args.turns, args.seed)
    if not prompts:
        raise BadInput(f"recommend.start: {settings['start']} leaves none of {len(lines)} explored dialogues")
    write_parquet(args.output, prompts)
    write_manifest(args.output, [args.explored, args.pool], used, rows=len(prompts))
    folder = Path(args.output)
    shards.sync(folder.parent / "shards" / folder.stem, args.shards, folder)
    print(f"{len(kept)} of {len(lines)} dialogues to learn from; {len(prompts)} prompts for the rounds")


if __name__ == "__main__":
    run(main)
