"""Compute one part of a composed reward for answers: its value by uid.

A part is a built-in reward, the grading of a task, a judge, or a function of the user's. Each part has a ledger of its
own, and its weight is not known here: the stage combine_rewards adds the parts up. Answers that a part cannot judge
have the value null and a reason.

    python -m workflow_scripts.reward --task math --results runs/arithmetic/results/r1/auto/2_0.pkl \\
        --name length --part '{"reward": "length", "options": {"target": 64}}' --output /tmp/length.pkl
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from workflow_scripts import tasks
from workflow_scripts.config.sections import Part
from workflow_scripts.core.pickles import write_pickle
from workflow_scripts.core.records import conserve
from workflow_scripts.core.running import plugins
from workflow_scripts.core.running.cli import (
    add_code_argument,
    add_endpoint_arguments,
    add_task_arguments,
    arguments,
    merged,
    run,
    say,
    shard,
    task_files,
)
from workflow_scripts.core.running.code import code_identity
from workflow_scripts.core.running.ledger import Ledger, map_records
from workflow_scripts.core.running.manifest import content_digest, write_manifest, write_usage
from workflow_scripts.core.workers import Workers
from workflow_scripts.grade import encodable, model_state, read_answers
from workflow_scripts.rewards import own_file, roots
from workflow_scripts.rewards._parts import Value, decided, load_part, values
from workflow_scripts.tasks.defaults import EnvironmentOptions

BATCH = 64  # answers that enter the ledger together

Scorer = Callable[[list[dict[str, Any]]], Sequence[Value]]


def scorer_of(part: Part, args: argparse.Namespace, stack: ExitStack) -> tuple[Scorer, Callable[[], dict[str, Any]]]:
    """Return the function that computes the part's values, and one that tells what it cost. `stack` ends what it holds.

    Models are loaded, and endpoints opened, with the first batch, so that nothing is loaded if the ledger has all.
    """
    if part.judge is not None:
        return judging(part, args, stack)
    if part.reward in plugins.names("tasks"):
        return grading(part, args, stack), dict

    loaded: list[Any] = []

    def score(batch: list[dict[str, Any]]) -> Sequence[Value]:
        if not loaded:
            loaded.append(load_part(part.reward, part.model, part.options))
        return values(part.reward, loaded[0], batch)

    return score, dict


def judging(part: Part, args: argparse.Namespace, stack: ExitStack) -> tuple[Scorer, Callable[[], dict[str, Any]]]:
    """Return the functions of a part that a judge computes."""
    assert part.judge is not None
    judge = plugins.load("rewards", part.reward)
    settings = part.judge.model_dump(mode="json")
    folder = args.requests or f"{args.output}.requests"
    opened: list[Any] = []

    def score(batch: list[dict[str, Any]]) -> Sequence[Value]:
        if not opened:
            ledger = Ledger(f"{folder}/reward_requests", args.shard)
            opened.append(judge.Judging(settings, part.against, args.name, ledger))
            stack.callback(opened[0].close)
        return opened[0].values(batch)

    return score, lambda: opened[0].engine.usage if opened else {}


def grading(part: Part, args: argparse.Namespace, stack: ExitStack) -> Scorer:
    """Return the function of a part that is the grading of a task."""
    grader = tasks.load(part.reward, "Grading")
    grader.prepare(EnvironmentOptions(args.sandbox == "on", {}, f"{args.output}.requests", args.shard))
    sandbox = stack.enter_context(Workers(isolate=args.sandbox == "on")) if grader.runs_programs else None
    stack.callback(grader.close)

    def score(batch: list[dict[str, Any]]) -> Sequence[Value]:
        return [decided(grade["reward"]) for grade in grader.grade_batch(batch, sandbox)]

    return score


def code_roots(name: str) -> list[str]:
    """Return the roots of the code that computes a part."""
    if name in plugins.names("tasks"):
        return [tasks.root(name, "Grading")]
    return roots(name)


def determinants(part: Part, args: argparse.Namespace) -> Callable[[dict[str, Any]], Any]:
    """Return the function that tells what a value depends on."""
    common = [
        args.code or code_identity("workflow_scripts.reward:main", *code_roots(part.reward)),
        json.loads(args.part) | {"name": None, "weight": None},
        model_state(part.model),
        {path: content_digest(path) for path in part.files},
    ]

    def determines(answer: dict[str, Any]) -> list[Any]:
        if own_file(part.reward):
            return encodable([common, answer])  # a function of the user's may read the whole record
        fields = [answer.get(name) for name in ("uid", "question", "messages", "answer", "reference", "turns", "mask")]
        return encodable([common, fields])

    return determines


def parse_arguments() -> argparse.Namespace:
    parser = arguments(__doc__)
    add_task_arguments(parser)
    add_code_argument(parser)
    add_endpoint_arguments(parser)
    parser.add_argument("--results", required=True, help="answers (.pkl), graded or not")
    parser.add_argument("--name", required=True, help="the part's name")
    parser.add_argument("--part", required=True, help="an entry of the config's list `reward`, as JSON")
    parser.add_argument("--sandbox", choices=("on", "off"), default="on", help="isolate programs")
    parser.add_argument("--ledger", help="folder of finished values (default: none are kept)")
    parser.add_argument("--shard", type=shard, default="1_0", help="{shards}_{this one's rank}, for the ledger")
    parser.add_argument("--output", required=True, help="the .pkl to write")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    started = time.time()
    running = args.endpoints.get("rewards", {}).get(args.name, {})
    part = Part.model_validate(merged(json.loads(args.part), running))
    answers = read_answers(args.results, args.task, needs_reference=False)

    with ExitStack() as stack:
        score, usage = scorer_of(part, args, stack)
        computed = map_records(
            answers,
            determines=determinants(part, args),
            compute=score,
            ledger=Ledger(args.ledger, args.shard) if args.ledger else None,
            batches=[range(i, min(i + BATCH, len(answers))) for i in range(0, len(answers), BATCH)],
            desc=f"reward {args.name} {args.shard}",
        )
        cost = usage()

    rows = [{"uid": answer["uid"], **value} for answer, value in zip(answers, computed)]
    conserve("reward", len(answers), len(rows), 0)
    write_pickle(args.output, rows)

    known = [row["value"] for row in rows if row["value"] is not None]
    reasons = [row["reason"] for row in rows if row["value"] is None]
    inputs = [args.results, *part.files, *task_files(args).values()]
    fields: dict[str, Any] = {"rows": len(rows), "undecided": len(reasons)}
    if part.judge is not None and part.against:
        judge = plugins.load("rewards", part.reward)
        fields["position_bias"] = judge.position_bias(row.get("preferred", []) for row in rows)
    write_manifest(args.output, inputs, json.loads(args.part), **fields)
    write_usage(args.output, seconds=time.time() - started, code=args.code, **cost)

    if reasons:
        say(f"{len(reasons)} answers are undecided; the first reason: {reasons[0]}")
    mean = f"{sum(known) / len(known):.4f}" if known else "–"
    print(f"{args.name}={mean} n={len(rows)}" + (f" undecided={len(reasons)}" if reasons else ""))


if __name__ == "__main__":
    run(main)
