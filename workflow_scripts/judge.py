"""Let a judge compare a checkpoint's eval answers with those of the round before: which one is better, A or B?

The judge is a model behind an OpenAI-compatible endpoint. Its answers are kept in a ledger and paid for once. Which
answer is shown first is drawn from the answer's id, so that a judge who prefers first answers favours no round. Equal
answers are ties, and the judge is not asked about them. The output has one JSON line per answer with uid and verdict
(1 won, 0.5 tie, 0 lost). Answers without a verdict are listed in OUTPUT.rejects.jsonl.
"""

import argparse
import json
import re
from contextlib import closing
from typing import Any

from workflow_scripts import engines
from workflow_scripts.config.load import settings_help
from workflow_scripts.config.sections import Judge, settings_of
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import write_jsonl, write_rejects
from workflow_scripts.core.identity import digest
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
from workflow_scripts.engines import Chat, Reply

TIE = 0.5
QUESTION = """Which of two answers to an instruction is better: more helpful, more correct, better written?

Instruction:
{question}

Answer A:
{a}

Answer B:
{b}

Reply with one word: A, B or tie."""

Answer = dict[str, Any]


def is_shown_first(uid: str) -> bool:
    """Return whether the newer answer is A."""
    return int(digest(["judge", uid]), 16) % 2 == 0


def chat(answer: Answer, before: Answer, max_tokens: int) -> Chat:
    """Return the question to the judge about two answers."""
    texts = (answer["answer"], before["answer"])
    a, b = texts if is_shown_first(answer["uid"]) else texts[::-1]
    content = QUESTION.format(question=answer["question"], a=a.strip(), b=b.strip())
    seed = int(digest(answer["uid"]), 16) % 2**31
    return Chat([{"role": "user", "content": content}], seed, max_tokens)


def verdict(answer: Answer, reply: Reply) -> tuple[float | None, str | None]:
    """Return (1, 0.5 or 0 for the newer answer, None), or (None, the reason why there is no verdict)."""
    if reply.rejected:
        return None, reply.rejected

    match = re.fullmatch(r"\W*(A|B|tie)\W*", reply.text, re.IGNORECASE)
    if not match:
        return None, f"neither A, B nor tie: {reply.text.strip()!r:.60}"
    if match[1].casefold() == "tie":
        return TIE, None

    return float((match[1].upper() == "A") == is_shown_first(answer["uid"])), None


def read_pairs(results: list[str], before: list[str]) -> list[tuple[Answer, Answer]]:
    """Return (answer, that of the round before) by uid. Raise BadInput if one is missing."""
    earlier = {record["uid"]: record for path in before for record in read_records(path)}
    answers = [record for path in results for record in read_records(path)]

    if missing := [answer["uid"] for answer in answers if answer["uid"] not in earlier]:
        raise BadInput(f"{before[0]}: the round before has no answer {missing[0]}; its eval questions were others")

    return [(answer, earlier[answer["uid"]]) for answer in answers]


def ask(args: argparse.Namespace, pairs: list[tuple[Answer, Answer]]) -> tuple[list[Reply], dict[str, Any]]:
    """Return the judge's replies about the pairs, and what they cost."""
    settings = Judge.model_validate(merged(json.loads(args.settings), args.endpoints.get("judge", {})))
    folder = args.requests or f"{args.output}.requests"
    engine = engines.load(
        "openai",
        settings=settings.openai.model_dump(mode="json"),
        sampling=settings.model_dump(mode="json"),
        stop=(),
        purpose="judge",
        ledger=Ledger(f"{folder}/judge_requests", "1_0"),
    )

    with closing(engine):
        replies = engine.generate([chat(*pair, settings.max_tokens) for pair in pairs])

    return replies, engine.usage


def main() -> None:
    parser = arguments(__doc__)
    add_code_argument(parser)
    add_endpoint_arguments(parser)
    parser.add_argument("--results", required=True, nargs="+", help="graded shards of a round (…_matchlog.pkl)")
    parser.add_argument("--before", required=True, nargs="+", help="graded shards of the round before")
    parser.add_argument("--settings", required=True, help=settings_help("judge"))
    parser.add_argument("--output", required=True, help="the .jsonl to write")
    args = parser.parse_args()

    pairs = read_pairs(args.results, args.before)
    different = [(answer, before) for answer, before in pairs if answer["answer"] != before["answer"]]
    replies, usage = ask(args, different)

    judged = {answer["uid"]: verdict(answer, reply) for (answer, _), reply in zip(different, replies)}
    verdicts = []
    rejects = []
    for answer, _ in pairs:
        value, reason = judged.get(answer["uid"], (TIE, None))
        if reason is None:
            verdicts.append({"uid": answer["uid"], "verdict": value})
        else:
            rejects.append({"uid": answer["uid"], "reason": reason})

    conserve("judge", len(pairs), len(verdicts), len(rejects))
    write_jsonl(args.output, verdicts)
    write_rejects(args.output, rejects)
    used = settings_of(Judge.model_validate_json(args.settings))
    write_manifest(args.output, [*args.results, *args.before], used, rows=len(verdicts), rejects=len(rejects))
    write_usage(args.output, code=args.code, **usage)

    if rejects:
        say(f"{len(rejects)} answers without a verdict; the first reason: {rejects[0]['reason']}")
    wins = sum(line["verdict"] for line in verdicts) / max(1, len(verdicts))
    print(f"{len(verdicts)} verdicts on {len(pairs)} answers ({len(different)} asked about), wins {wins:.1%}")


if __name__ == "__main__":
    run(main)
