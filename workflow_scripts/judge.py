"""A judge compares a checkpoint's eval answers with those of the round before: which one is better, A or B?

The judge is a model behind an OpenAI-compatible endpoint; what it says is paid for once (ledger and budget). Which
answer stands first is drawn from the answer's id, so that a judge who likes first answers favours nobody. Equal answers
are ties and not asked about. Written are uid and verdict (1 won, 0.5 tie, 0 lost), one JSON line each; answers without
a verdict are in OUTPUT.rejects.jsonl.
"""

import json
import re
from contextlib import closing

from workflow_scripts import engines
from workflow_scripts.core.cli import arguments, run, say
from workflow_scripts.core.config import settings_help
from workflow_scripts.core.ledger import Ledger
from workflow_scripts.core.manifest import write_manifest, write_usage
from workflow_scripts.core.records import BadInput, conserve, digest, read_records, write_jsonl, write_rejects
from workflow_scripts.core.sections import Judge, without_endpoint
from workflow_scripts.engines import Chat, Reply

ASKED = """Which of two answers to an instruction is better: more helpful, more correct, better written?

Instruction:
{question}

Answer A:
{a}

Answer B:
{b}

Reply with one word: A, B or tie."""


def is_first(uid: str) -> bool:
    """Whether the newer answer is A."""
    return int(digest(["judge", uid]), 16) % 2 == 0


def chat(record: dict, before: dict, max_tokens: int) -> Chat:
    texts = (record["solution"], before["solution"])
    a, b = texts if is_first(record["uid"]) else texts[::-1]
    asked = ASKED.format(question=record["question"], a=a.strip(), b=b.strip())
    return Chat([{"role": "user", "content": asked}], int(digest(record["uid"]), 16) % 2**31, max_tokens)


def verdict(record: dict, reply: Reply) -> tuple[float | None, str | None]:
    """(1, 0.5 or 0 for the newer answer, None), or (None, why there is no verdict)."""
    if reply.rejected:
        return None, reply.rejected
    if not (said := re.fullmatch(r"\W*(A|B|tie)\W*", reply.text, re.IGNORECASE)):
        return None, f"neither A, B nor tie: {reply.text.strip()!r:.60}"
    if said[1].casefold() == "tie":
        return 0.5, None
    return float((said[1].upper() == "A") == is_first(record["uid"])), None


def paired(results: list[str], before: list[str]) -> list[tuple[dict, dict]]:
    """(record, that of the round before) by uid; BadInput where one is missing."""
    earlier = {record["uid"]: record for path in before for record in read_records(path)}
    records = [record for path in results for record in read_records(path)]
    if missing := [record["uid"] for record in records if record["uid"] not in earlier]:
        raise BadInput(f"{before[0]}: the round before has no answer {missing[0]}; it was asked other questions")
    return [(record, earlier[record["uid"]]) for record in records]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--results", required=True, nargs="+", help="graded shards of a round (…_matchlog.pkl)")
    parser.add_argument("--before", required=True, nargs="+", help="the same of the round before")
    parser.add_argument("--settings", required=True, help=settings_help("judge"))
    parser.add_argument("--endpoint", default="{}", help="keys of its `openai` that no result depends on, as JSON")
    parser.add_argument("--requests", help="folder of paid requests; beside the output by default")
    parser.add_argument("--output", required=True, help="the .jsonl to write")
    args = parser.parse_args()
    settings = Judge.model_validate_json(args.settings).model_dump(mode="json")
    limits = json.loads(args.endpoint)
    pairs = paired(args.results, args.before)
    asked = [(record, before) for record, before in pairs if record["solution"] != before["solution"]]
    with closing(
        engines.load(
            "openai", settings=settings["openai"] | limits, sampling=settings, stop=(), purpose="judge",
            ledger=Ledger(args.requests or f"{args.output}.requests", "1_0"),
        )
    ) as engine:  # fmt: skip
        replies = engine.generate([chat(*pair, settings["max_tokens"]) for pair in asked])
    said = {record["uid"]: verdict(record, reply) for (record, _), reply in zip(asked, replies)}
    found = {record["uid"]: said.get(record["uid"], (0.5, None)) for record, _ in pairs}
    lines = [{"uid": uid, "verdict": value} for uid, (value, reason) in found.items() if reason is None]
    rejects = [{"uid": uid, "reason": reason} for uid, (_, reason) in found.items() if reason is not None]
    conserve("judge", len(pairs), len(lines), len(rejects))
    write_jsonl(args.output, lines)
    write_rejects(args.output, rejects)
    inputs = [*args.results, *args.before]
    write_manifest(args.output, inputs, without_endpoint(settings), rows=len(lines), rejects=len(rejects))
    write_usage(args.output, **engine.usage)
    if rejects:
        say(f"{len(rejects)} answers without a verdict, the first: {rejects[0]['reason']}")
    wins = sum(line["verdict"] for line in lines) / max(1, len(lines))
    print(f"{len(lines)} verdicts on {len(pairs)} answers ({len(asked)} asked about), wins {wins:.1%}")


if __name__ == "__main__":
    run(main)
