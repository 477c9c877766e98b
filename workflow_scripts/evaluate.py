"""Count a checkpoint's graded answers to the eval questions: the figures of a round."""

from workflow_scripts import tasks
from workflow_scripts.core.cli import arguments, run
from workflow_scripts.core.manifest import content_digest
from workflow_scripts.core.records import read_records, write_json


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--task", required=True, help="a module of workflow_scripts/tasks")
    parser.add_argument("--results", required=True, nargs="+", help="graded shards (…_matchlog.pkl)")
    parser.add_argument("--before", nargs="*", default=[], help="the same of the round before, to compare answers with")
    parser.add_argument("--judged", nargs="*", default=[], help="what the stage judge wrote (.jsonl)")
    parser.add_argument("--round", type=int, required=True, help="of the checkpoint that answered")
    parser.add_argument("--output", required=True, help="the .json to write")
    args = parser.parse_args()
    before = {record["uid"]: record for path in args.before for record in read_records(path)}
    judged = {line["uid"]: line["verdict"] for path in args.judged for line in read_records(path)}
    records = [
        record | {"before": before.get(record["uid"]), "judged": judged.get(record["uid"])}
        for path in args.results
        for record in read_records(path)
    ]
    task = tasks.load(args.task)
    figures = task.summarise(records)
    inputs = {path: content_digest(path) for path in args.results + args.before + args.judged}
    write_json(args.output, {"round": args.round} | figures | {"inputs": inputs})
    shown = ", ".join(
        f"{label} {figures[name]:{form}}" for name, (label, form) in task.FIGURES.items() if name in figures
    )
    print(f"round {args.round}: {shown}, {len(records)} answers")


if __name__ == "__main__":
    run(main)
