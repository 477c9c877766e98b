"""Grade answers: programs run in the sandbox, final answers are compared with the gold ones.

Results that exist as files are graded by the same command, which prints one line of figures:

    python -m workflow_scripts.grade --task math --results FILE.pkl --output OUT.pkl

accuracy judges the final answer, accuracy_any any attempt in the answer (as AutoCode did), code_share counts
answers with code, agreement compares accuracy_any with the verdicts already stored in the file.
"""

import time
from contextlib import closing
from functools import partial
from pathlib import Path

from workflow_scripts import tasks
from workflow_scripts.core.cli import arguments, run, say, shard
from workflow_scripts.core.code import code_digests
from workflow_scripts.core.config import settings_help
from workflow_scripts.core.dialogue_sections import Recommend
from workflow_scripts.core.ledger import Ledger, map_records
from workflow_scripts.core.manifest import content_digest, file_digest, write_manifest, write_usage
from workflow_scripts.core.records import BadInput, conserve, read_records, write_pickle
from workflow_scripts.core.sandbox import Sandbox

BATCH = 64
JUDGED = ("uid", "question", "solution", "correct", "fault")  # of a record, what a verdict rests on


def state_of(model: str | None) -> list:
    """Size and time of the files of a model in a folder; nothing of one on the hub."""
    files = sorted(Path(model).glob("*")) if model else []
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def check(where: str, record: dict) -> None:
    """A record that can be graded: two texts, and a gold answer (AutoCode's may be a list, text first)."""
    gold = record.get("correct")
    gold = gold[0] if isinstance(gold, list) and gold else gold
    for key, value in {"question": record.get("question"), "solution": record.get("solution"), "correct": gold}.items():
        if not isinstance(value, str):
            raise BadInput(f"{where}: {key} should be text, found {value!r:.60}")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--task", required=True, help="a module of workflow_scripts/tasks")
    parser.add_argument("--results", required=True, help="answers to grade (.pkl)")
    parser.add_argument("--sandbox", choices=("on", "off"), default="on", help="isolate programs")
    parser.add_argument("--reward", help="name, or FILE.py:FUNCTION, where the task lets you choose")
    parser.add_argument("--reward-model", help="of rewards that a model gives: a folder, or a name on the hub")
    parser.add_argument("--environment", help=settings_help("recommend"))
    parser.add_argument("--catalogue", help="what the stage catalogue wrote (.pkl), with --environment")
    parser.add_argument("--ledger", help="folder of finished verdicts; none are kept by default")
    parser.add_argument("--shard", type=shard, default="1_0", help="{shards}_{this one's rank}, for the ledger")
    parser.add_argument("--output", required=True, help="the .pkl to write")
    args = parser.parse_args()
    started, task = time.time(), tasks.load(args.task)
    judge = partial(task.grade, reward=args.reward, model=args.reward_model) if args.reward else task.grade
    whole = bool(args.reward) and ":" in args.reward  # a function of the user's own may read all of a record
    own = [file_digest(args.reward.rpartition(":")[0])] if whole else []
    judging = [args.sandbox, args.reward, args.reward_model, own, state_of(args.reward_model)]
    records = list(read_records(args.results))
    for number, record in enumerate(records):
        check(f"{args.results}, record {number}", record)

    if args.environment:
        settings = Recommend.model_validate_json(args.environment).model_dump(mode="json")
        environment = closing(task.environment(settings, args.catalogue))
        own += [args.environment, content_digest(args.catalogue)]
    else:
        environment = Sandbox(isolate=args.sandbox == "on")

    with environment as run:
        code = code_digests("workflow_scripts.grade", task.__name__)
        verdicts = map_records(
            [record | {"uid": record.get("uid", str(number))} for number, record in enumerate(records)],
            lambda job: [code, *judging, *(job.get(name) for name in JUDGED), job if whole else None],
            lambda batch: [judge(job, run) for job in batch],
            Ledger(args.ledger, args.shard) if args.ledger else None,
            [range(i, min(i + BATCH, len(records))) for i in range(0, len(records), BATCH)],
            f"grade {args.shard}",
        )
    results = [record | verdict for record, verdict in zip(records, verdicts)]
    conserve("grade", len(records), len(results), 0)
    write_pickle(args.output, results)
    write_manifest(args.output, [args.results, *filter(None, [args.catalogue])], {}, rows=len(results))
    write_usage(args.output, seconds=time.time() - started)
    if not results:
        say("no answers to grade in this shard")
        return
    tally = task.tally(results, records).items()
    print(" ".join(f"{name}={value:.4f}" if isinstance(value, float) else f"{name}={value}" for name, value in tally))


if __name__ == "__main__":
    run(main)
