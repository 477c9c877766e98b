"""Grade answers: the task computes a reward for each; programs run in the sandbox.

Results that exist as files are graded by the same command, which prints one line of figures:

    python -m workflow_scripts.grade --task math --results FILE.pkl --output OUT.pkl

For the task math, `accuracy` judges the final answer, `accuracy_any` any attempt in the answer (as AutoCode does),
`code_share` counts answers with code, `agreement` compares accuracy_any with the verdicts stored in the file, and
`undecided` counts final answers that could not be compared. They count as wrong.
"""

import argparse
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from workflow_scripts import tasks
from workflow_scripts.config.layout import is_learnt_from
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.pickles import write_pickle
from workflow_scripts.core.records import conserve, read_records
from workflow_scripts.core.running.cli import (
    add_code_argument,
    add_endpoint_arguments,
    add_task_arguments,
    arguments,
    run,
    say,
    shard,
    task_files,
)
from workflow_scripts.core.running.code import code_identity
from workflow_scripts.core.running.ledger import Ledger, map_records
from workflow_scripts.core.running.manifest import content_digest, file_digest, write_manifest, write_usage
from workflow_scripts.core.workers import Workers
from workflow_scripts.rewards import own_file, roots
from workflow_scripts.tasks.defaults import EnvironmentOptions

BATCH = 64  # answers that enter the ledger together


def model_state(model: str | None) -> list:
    """Return size and time of a local model's files, which tell whether it changed; nothing for one on the hub."""
    files = sorted(Path(model).glob("*")) if model else []
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def read_answers(path: str, task: str, needs_reference: bool) -> list[dict[str, Any]]:
    """Read the answers to grade, in this project's format or in that of the task's original system."""
    importer = tasks.load(task, "Importer")
    answers = []

    for number, record in enumerate(read_records(path)):
        if importer.is_foreign_format(record):
            record = importer.convert(record)

        for key in ("question", "answer"):
            if not isinstance(record.get(key), str):
                raise BadInput(f"{path}, record {number}: {key} should be text, found {record.get(key)!r:.60}")
        if needs_reference and record.get("reference") is None:
            raise BadInput(f"{path}, record {number}: there is no reference to grade the answer with")

        answers.append({"uid": str(number), **record})

    return answers


def load_grading(args: argparse.Namespace) -> Any:
    """Return the task's grading, with the chosen reward if the task leaves the choice."""
    grading = tasks.load(args.task, "Grading", args.task_settings, task_files(args))

    if args.reward:
        if not hasattr(grading, "choose_reward"):
            raise BadInput(f"--reward: task {args.task} grades in its own way; leave this option out")
        grading.choose_reward(args.reward, args.reward_model)

    requests = args.requests or f"{args.output}.requests"
    grading.prepare(EnvironmentOptions(args.sandbox == "on", args.endpoints.get("task", {}), requests, args.shard))
    return grading


def determinants(args: argparse.Namespace, grading: Any):
    """Return the function that tells what a grade depends on."""
    own = own_file(args.reward)
    common = [
        args.code
        or code_identity("workflow_scripts.grade:main", tasks.root(args.task, "Grading"), *roots(args.reward)),
        args.sandbox,
        args.reward,
        args.reward_model,
        model_state(args.reward_model),
        file_digest(own) if own else None,
        args.task_settings,
        {name: content_digest(path) for name, path in task_files(args).items()},
    ]

    def determines(answer: dict[str, Any]) -> list[Any]:
        fields = [answer.get(name) for name in grading.depends_on]
        return encodable([*common, fields, answer if own else None])  # a function of the user's may read all of it

    return determines


def encodable(value: Any) -> Any:
    """Return a JSON value in which lone surrogates, which UTF-8 cannot encode, are written as escapes."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {key: encodable(item) for key, item in value.items()}
    return [encodable(item) for item in value] if isinstance(value, list) else value


def parse_arguments() -> argparse.Namespace:
    parser = arguments(__doc__)
    add_task_arguments(parser)
    add_code_argument(parser)
    add_endpoint_arguments(parser)
    parser.add_argument("--results", required=True, help="answers to grade (.pkl)")
    parser.add_argument("--sandbox", choices=("on", "off"), default="on", help="isolate programs")
    parser.add_argument("--reward", help="name of the reward or FILE.py:FUNCTION, for tasks that leave the choice")
    parser.add_argument("--reward-model", help="for rewards computed by a model: its folder or its name on the hub")
    parser.add_argument("--ledger", help="folder of finished grades (default: none are kept)")
    parser.add_argument("--shard", type=shard, default="1_0", help="{shards}_{this one's rank}, for the ledger")
    parser.add_argument("--output", required=True, help="the .pkl to write")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    started = time.time()
    grading = load_grading(args)
    answers = read_answers(args.results, args.task, needs_reference="reference" in grading.depends_on)

    with Workers(isolate=args.sandbox == "on") if grading.runs_programs else nullcontext() as sandbox:
        grades = map_records(
            answers,
            determines=determinants(args, grading),
            compute=lambda batch: grading.grade_batch(batch, sandbox),
            ledger=Ledger(args.ledger, args.shard) if args.ledger else None,
            batches=[range(i, min(i + BATCH, len(answers))) for i in range(0, len(answers), BATCH)],
            desc=f"grade {args.shard}",
        )

    grading.close()
    graded = [answer | grade for answer, grade in zip(answers, grades)]
    conserve("grade", len(answers), len(graded), 0)
    if is_learnt_from(args.results) and (fault := grading.fault(graded)):
        raise BadInput(f"{args.results}: {fault}")
    write_pickle(args.output, graded)

    own = own_file(args.reward)
    inputs = [args.results, *task_files(args).values(), *([own] if own else [])]
    settings = {"reward": args.reward, "reward_model": args.reward_model, "task": args.task_settings}
    undecided = sum(answer.get("undecided") is not None for answer in graded)
    counts = {"undecided": undecided} if undecided else {}
    write_manifest(args.output, inputs, settings, rows=len(graded), **counts)
    write_usage(args.output, seconds=time.time() - started, code=args.code)

    if not graded:
        say("no answers to grade in this shard")
        return

    figures = grading.summary(graded, answers).items()
    print(" ".join(f"{name}={value:.4f}" if isinstance(value, float) else f"{name}={value}" for name, value in figures))


if __name__ == "__main__":
    run(main)
