"""A round's graded answers with what they are scored by (r{n}_s1_syn_addprompt): one JSON line for each.

uid, syn_pmt_id, prompt, answer, status, result (the row, or null), copy (whether it is a training row), and `ds1`: the
line that a task model sees of it between `before` and `after` of each anchor's prompt; `ds0` is those prompts without
it, the same for all rows, in score_anchors/; `own` is the row in an anchor's place (after, gold, and its target as it
stands).
"""

from pathlib import Path

from workflow_scripts.core.running.cli import arguments, run
from workflow_scripts.core.running.manifest import write_manifest
from workflow_scripts.core.files import read_json, write_jsonl
from workflow_scripts.core.records import conserve, read_records
from workflow_scripts.tasks.tabular.schemas import STATUSES, as_text, read_schema, read_table
from workflow_scripts.tasks.tabular import shot, task_question


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--results", required=True, nargs="+", help="graded shards (…_matchlog.pkl)")
    parser.add_argument("--tables", required=True, help="folder of the data set, as split_tables wrote it")
    parser.add_argument("--prompts", required=True, help="the anchors' prompts (.json)")
    parser.add_argument("--output", required=True, help="the .jsonl to write")
    args = parser.parse_args()
    schema = read_schema(Path(args.tables) / "schema.json")
    known = {as_text(row) for row in read_table(schema, Path(args.tables) / "train.csv")}
    choices, raw = read_json(args.prompts)["candidates"], []
    records = sorted((r for path in args.results for r in read_records(path)), key=lambda record: record["uid"])
    for record in records:
        row = record["row"]
        one = {"uid": record["uid"], "syn_pmt_id": record["id"], "prompt": record["question"]}
        one |= {"answer": record["solution"], "status": record["status"], "result": row}
        one |= {"copy": bool(row) and as_text(row) in known, "ds1": shot(schema, choices, row) if row else None}
        one["own"] = None
        if row:
            _, after, gold = task_question(schema, choices, [], row)
            one["own"] = {"after": after, "gold": gold, "target": row[schema.target]}
        raw.append(one)
    conserve("syn_addprompt", len(records), len(raw), 0)
    write_jsonl(args.output, raw)
    counts = {status: sum(one["status"] == status for one in raw) for status in STATUSES}
    copies = sum(one["copy"] for one in raw)
    sources = [*args.results, args.prompts, f"{args.tables}/schema.json", f"{args.tables}/train.csv"]
    write_manifest(args.output, sources, {}, rows=len(raw), copies=copies, **counts)
    print(f"{len(raw)} answers: {counts}, {copies} copies of training rows")


if __name__ == "__main__":
    run(main)
