"""Let a judge compare a checkpoint's eval answers with those of the round before: which one is better, A or B?

The judge is a model behind an OpenAI-compatible endpoint. Its answers are kept in a ledger and paid for once. Which
answer is shown first is drawn from the answer's id, and a share of the pairs is shown in both orders
(rewards/_pairs.py). Equal answers are ties, and the judge is not asked about them. The output has one JSON line per
answer with uid, verdict (1 won, 0.5 tie, 0 lost) and `preferred` (first, second or tie, per order). Answers without a
verdict are listed in OUTPUT.rejects.jsonl. The manifest has the position bias.
"""

import argparse
import json
from contextlib import closing
from typing import Any

from workflow_scripts import engines
from workflow_scripts.config.load import settings_help
from workflow_scripts.config.sections import Judge, settings_of
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
from workflow_scripts.rewards._pairs import (
    CRITERION,
    Judged,
    Pair,
    described,
    judge_pairs,
    position_bias,
    read_rubric,
)

Answer = dict[str, Any]


def read_pairs(results: list[str], before: list[str]) -> list[tuple[Answer, Answer]]:
    """Return (answer, that of the round before) by uid. Raise BadInput if one is missing."""
    earlier = {record["uid"]: record for path in before for record in read_records(path)}
    answers = [record for path in results for record in read_records(path)]

    if missing := [answer["uid"] for answer in answers if answer["uid"] not in earlier]:
        raise BadInput(f"{before[0]}: the round before has no answer {missing[0]}; its eval questions were others")

    return [(answer, earlier[answer["uid"]]) for answer in answers]


def ask(args: argparse.Namespace, pairs: list[tuple[Answer, Answer]]) -> tuple[list[Judged], dict[str, Any]]:
    """Return the judge's verdicts on the pairs, and what they cost."""
    settings = Judge.model_validate(merged(json.loads(args.settings), args.endpoints.get("judge", {})))
    values = settings.model_dump(mode="json")
    folder = args.requests or f"{args.output}.requests"
    engine = engines.load(
        "openai",
        settings=values["openai"],
        sampling=values,
        stop=(),
        purpose="judge",
        ledger=Ledger(f"{folder}/judge_requests", "1_0"),
    )
    compared = [Pair(answer["uid"], answer["question"], answer["answer"], before["answer"]) for answer, before in pairs]

    with closing(engine):
        judged = judge_pairs(engine, compared, values, read_rubric(settings.rubric) or CRITERION)

    return judged, engine.usage


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
    judged, usage = ask(args, pairs)

    verdicts = []
    rejects = []
    for (answer, _), one in zip(pairs, judged):
        if one.value is None:
            rejects.append({"uid": answer["uid"], "reason": one.reason})
        else:
            line = {"uid": answer["uid"], "verdict": one.value}
            verdicts.append(line | ({"preferred": one.preferred} if one.preferred else {}))

    conserve("judge", len(pairs), len(verdicts), len(rejects))
    write_jsonl(args.output, verdicts)
    write_rejects(args.output, rejects)
    used = settings_of(Judge.model_validate_json(args.settings))
    bias = position_bias(line.get("preferred", []) for line in verdicts)
    inputs = [*args.results, *args.before, *filter(None, [used.get("rubric")])]
    write_manifest(args.output, inputs, used, rows=len(verdicts), rejects=len(rejects), position_bias=bias)
    write_usage(args.output, code=args.code, **usage)

    if rejects:
        say(f"{len(rejects)} answers without a verdict; the first reason: {rejects[0]['reason']}")
    wins = sum(line["verdict"] for line in verdicts) / max(1, len(verdicts))
    print(f"{len(verdicts)} verdicts on {len(pairs)} answers, wins {wins:.1%}; {described(bias)}")


if __name__ == "__main__":
    run(main)
