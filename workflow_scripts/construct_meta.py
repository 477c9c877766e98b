"""Collect a round's graded answers by question: one meta file for auto answers, one for triggered answers."""

from workflow_scripts import tasks
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.pickles import write_pickle
from workflow_scripts.core.records import read_records
from workflow_scripts.core.running.cli import (
    add_code_argument,
    add_task_arguments,
    arguments,
    progress,
    run,
    task_files,
)
from workflow_scripts.core.running.manifest import write_manifest


def main() -> None:
    parser = arguments(__doc__)
    add_task_arguments(parser)
    add_code_argument(parser)
    parser.add_argument("--results", required=True, nargs="+", help="graded shards (…_matchlog.pkl)")
    parser.add_argument("--dedup", action="store_true", help="count equal answers to a question once, as AutoCode does")
    parser.add_argument("--output", required=True, help="the .pkl to write")
    args = parser.parse_args()

    answers = []
    for path in progress(args.results, total=len(args.results), desc="construct_meta", unit="shard"):
        for answer in read_records(path):
            if "reward" not in answer:
                raise BadInput(
                    f"{path}: answer {answer.get('uid')} is not graded; run workflow_scripts.grade on the file"
                )
            answers.append(answer)

    selection = tasks.load(args.task, "Selection", args.task_settings, task_files(args))
    meta = selection.construct_meta(answers, args.dedup)
    counts = selection.counts(meta)

    write_pickle(args.output, meta)
    settings = {"dedup": args.dedup}
    write_manifest(args.output, args.results, settings, rows=len(answers), questions=len(meta), **counts)
    print(f"{len(meta)} questions; " + ", ".join(f"{name} {count}" for name, count in counts.items()))


if __name__ == "__main__":
    run(main)
