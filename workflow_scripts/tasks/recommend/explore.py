"""Let a teacher recommend in dialogues with the seeker.

The cold start learns from the teacher's dialogues. On a test split, they show how good the teacher is. Teacher and
seeker are scripts or endpoints; what an endpoint says is paid for once (ledger and budget). The output has one JSON
line per dialogue, with the original's field names:

    id, given_dialog, generated_dialog, target_items, interactions, ranks, rec_success,
    hit_ratio     share of successes among all dialogues up to this one
    rec_names     the targets
    topk_names    the first items of the last recommendation's ranking

Dialogues that an endpoint spoilt are in OUTPUT.rejects.jsonl.

    python -m workflow_scripts.tasks.recommend.explore --prompts runs/recommend-tiny/prompts/eval.parquet \\
        --catalogue runs/recommend-tiny/catalogue/items.pkl --settings '{"explore": {}}' --output /tmp/teacher.jsonl
"""

import argparse
import json
from contextlib import closing
from itertools import islice
from typing import Any

from workflow_scripts.config.load import settings_help
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import write_jsonl, write_rejects
from workflow_scripts.core.records import conserve, read_records
from workflow_scripts.core.running.cli import (
    add_code_argument,
    add_endpoint_arguments,
    arguments,
    merged,
    run,
    say,
)
from workflow_scripts.core.running.ledger import Ledger
from workflow_scripts.core.running.manifest import write_manifest, write_usage
from workflow_scripts.rollout.environment import Conversation
from workflow_scripts.rollout.feeding import play_all
from workflow_scripts.rollout.loop import Answer, Complete, TextSpeaker, converse
from workflow_scripts.tasks.defaults import EnvironmentOptions
from workflow_scripts.tasks.recommend.conversation import Conversation as Dialogue
from workflow_scripts.tasks.recommend.items import Catalogue
from workflow_scripts.tasks.recommend.outcomes import outcome_of
from workflow_scripts.tasks.recommend.players import make_teacher
from workflow_scripts.tasks.recommend.settings import Settings

TOP = 10  # names in topk_names


def read_conversations(path: str, start: int, end: int | None) -> list[Conversation]:
    """Return the dialogues of a frozen split from `start` to `end`. Raise BadInput if there are none."""
    prompts = islice(read_records(path), start, end)
    conversations = [Conversation(prompt["id"], prompt) for prompt in prompts]  # type: ignore[arg-type]

    if not conversations:
        raise BadInput(f"{path}: recommend.explore.start {start} leaves no dialogue")
    return conversations


def transcripts(
    conversations: list[Conversation], catalogue: Catalogue
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the dialogues as lines of the output, and the rejects with their reasons."""
    lines: list[dict[str, Any]] = []
    rejects: list[dict[str, Any]] = []
    hits = 0

    for conversation in conversations:
        prompt: Any = conversation.prompt
        turns = conversation.turns
        line = {"id": prompt["id"], "given_dialog": prompt["dialog"], "generated_dialog": turns}
        if conversation.rejected:
            rejects.append(line | {"reason": conversation.rejected})
            continue

        outcome = outcome_of(catalogue, turns, prompt["reference"])
        hits += outcome.success
        last = turns[-1]["content"]
        top = catalogue.ranking(last)[:TOP] if catalogue.recommends(last) else ()
        line |= {
            "target_items": prompt["reference"],
            "rec_success": outcome.success,
            "rec_names": prompt["reference"],
            "hit_ratio": hits / (len(lines) + 1),
            "interactions": outcome.interactions,
            "ranks": outcome.ranks,
            "topk_names": [catalogue.items[number]["title"] for number in top],
        }
        lines.append(line)

    return lines, rejects


def parse_arguments() -> argparse.Namespace:
    parser = arguments(__doc__)
    add_code_argument(parser)
    add_endpoint_arguments(parser)
    parser.add_argument("--prompts", required=True, help="a frozen split (.parquet)")
    parser.add_argument("--catalogue", required=True, help="the catalogue of items (.pkl)")
    parser.add_argument(
        "--settings",
        type=json.loads,
        required=True,
        help=settings_help("recommend", "seeker", "explore", "grounding", "list_length"),
    )
    parser.add_argument("--turns", type=int, default=5, help="interactions of a dialogue at most (generate.pool.turns)")
    parser.add_argument(
        "--max-tokens", type=int, default=512, help="the teacher's tokens per dialogue (generate.pool.max_tokens)"
    )
    parser.add_argument("--seed", default="0", help="random seed")
    parser.add_argument("--output", required=True, help="the .jsonl to write")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    folder = args.requests or f"{args.output}.requests"
    endpoints = args.endpoints.get("task", {})
    explore = Settings.model_validate(merged(args.settings, endpoints)).explore
    if not explore:
        raise BadInput("--settings: recommend.explore says who the teacher is; give it")

    dialogue = Dialogue(args.settings, {"catalogue": args.catalogue})
    options = EnvironmentOptions(endpoints=endpoints, requests=folder)
    with dialogue.environment("explore", options) as environment:
        conversations = read_conversations(args.prompts, explore.start, explore.end)
        ledger = Ledger(f"{folder}/teacher_requests", "1_0") if explore.teacher.openai else None
        length = environment.settings.list_length
        teacher = make_teacher(explore.teacher, environment.catalogue, length, ledger, "teacher")

        async def play_one(conversation: Conversation, complete: Complete, answer: Answer) -> None:
            request = dialogue.requests(conversation.prompt, "auto")["auto"]
            speaker = TextSpeaker(complete, request, environment, args.max_tokens, args.seed)
            await converse(conversation, speaker, environment, answer, args.turns)

        with closing(teacher):
            play_all(conversations, teacher, environment, play_one)
        lines, rejects = transcripts(conversations, environment.catalogue)

    conserve("explore", len(conversations), len(lines), len(rejects))
    publish(args, lines, rejects, getattr(teacher, "usage", {}))


def publish(
    args: argparse.Namespace, lines: list[dict[str, Any]], rejects: list[dict[str, Any]], usage: dict[str, Any]
) -> None:
    """Write the dialogues, their manifest, what they cost, and the rejects with their reasons."""
    write_jsonl(args.output, lines)
    write_rejects(args.output, rejects)

    successes = sum(line["rec_success"] for line in lines)
    used = args.settings | {"turns": args.turns, "max_tokens": args.max_tokens, "seed": args.seed}
    counts = {"rows": len(lines), "successful": successes, "rejects": len(rejects)}
    write_manifest(args.output, [args.prompts, args.catalogue], used, **counts)
    write_usage(args.output, code=args.code, **usage)

    if rejects:
        say(f"{len(rejects)} rejects, the first: {rejects[0]['reason']}")
    interactions = sum(line["interactions"] for line in lines) / max(1, len(lines))
    share = successes / max(1, len(lines))
    print(f"{len(lines)} dialogues, success {share:.1%}, {interactions:.2f} interactions")


if __name__ == "__main__":
    run(main)
