"""Collect a round's graded answers by question: one meta file for auto answers, one for triggered ones."""

from workflow_scripts import tasks
from workflow_scripts.core.cli import arguments, progress, run
from workflow_scripts.core.manifest import write_manifest
from workflow_scripts.core.records import BadInput, read_records, write_pickle


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--task", required=True, help="a module of workflow_scripts/tasks")
    parser.add_argument("--results", required=True, nargs="+", help="graded shards (…_matchlog.pkl)")
    parser.add_argument("--dedup", action="store_true", help="count equal texts of a question once, as the original")
    parser.add_argument("--output", required=True, help="the .pkl to write")
    args = parser.parse_args()
    task, records = tasks.load(args.task), []
    for path in progress(args.results, total=len(args.results), desc="construct_meta", unit="shard"):
        for record in read_records(path):
            if task.GRADED not in record:
                raise BadInput(f"{path}: record {record.get('uid')} is not graded; run workflow_scripts.grade on it")
            records.append(record)
    meta = task.construct_meta(records, args.dedup)
    write_pickle(args.output, meta)
    counts = task.counts(meta)
    write_manifest(args.output, args.results, {"dedup": args.dedup}, rows=len(records), questions=len(meta), **counts)
    print(f"{len(meta)} questions; " + ", ".join(f"{name} {count}" for name, count in counts.items()))


if __name__ == "__main__":
    run(main)
