"""The rows of a round's answers as a CSV file (r{n}_s2_raw_to_csv); copies of training rows are left out, or kept."""

from pathlib import Path

from workflow_scripts.core.running.cli import arguments, run
from workflow_scripts.core.running.manifest import write_manifest
from workflow_scripts.core.records import conserve, read_records
from workflow_scripts.tasks.tabular.schemas import read_schema, write_csv


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--raw", required=True, help="what syn_addprompt wrote (.jsonl)")
    parser.add_argument("--schema", required=True, help="schema.json of the data set")
    parser.add_argument("--copies", choices=("drop", "keep"), default="drop", help="copies of training rows")
    parser.add_argument("--output", required=True, help="the .csv to write")
    args = parser.parse_args()
    schema, raw = read_schema(args.schema), list(read_records(args.raw))
    valid = [one for one in raw if one["result"]]
    rows = [one["result"] for one in valid if args.copies == "keep" or not one["copy"]]
    invalid, copies = sum(one["status"] != "SUCCESS" for one in raw), sum(one["copy"] for one in valid)
    conserve("raw_to_csv", len(raw), len(rows), invalid + (copies if args.copies == "drop" else 0))
    write_csv(args.output, schema, rows)
    write_manifest(args.output, [args.raw], {"copies": args.copies}, rows=len(rows), valid=len(valid), answers=len(raw))
    print(f"{Path(args.output).name}: {len(rows)} rows of {len(raw)} answers, {len(valid) - len(rows)} copies left out")


if __name__ == "__main__":
    run(main)
