"""Write the valid rows of a round's answers as a CSV file; duplicates of training rows are left out, or kept."""

from pathlib import Path

from workflow_scripts.core.records import conserve, read_records
from workflow_scripts.core.running.cli import add_code_argument, arguments, run
from workflow_scripts.core.running.manifest import write_manifest
from workflow_scripts.tasks.tabular.schemas import read_schema, write_csv


def main() -> None:
    parser = arguments(__doc__)
    add_code_argument(parser)
    parser.add_argument("--raw", required=True, help="what syn_addprompt wrote (.jsonl)")
    parser.add_argument("--schema", required=True, help="schema.json of the data set")
    parser.add_argument("--copies", choices=("drop", "keep"), default="drop", help="duplicates of training rows")
    parser.add_argument("--output", required=True, help="the .csv to write")
    args = parser.parse_args()

    schema = read_schema(args.schema)
    answers = list(read_records(args.raw))
    valid = [answer for answer in answers if answer["row"]]
    kept = [answer for answer in valid if args.copies == "keep" or not answer["is_duplicate"]]
    invalid = sum(answer["status"] != "SUCCESS" for answer in answers)
    left_out = len(valid) - len(kept)
    conserve("raw_to_csv", len(answers), len(kept), invalid + left_out)

    write_csv(args.output, schema, [answer["row"] for answer in kept])
    used = {"copies": args.copies}
    write_manifest(args.output, [args.raw, args.schema], used, rows=len(kept), valid=len(valid), answers=len(answers))
    print(f"{Path(args.output).name}: {len(kept)} rows of {len(answers)} answers, {left_out} duplicates left out")


if __name__ == "__main__":
    run(main)
