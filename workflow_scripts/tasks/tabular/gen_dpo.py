"""Write a round's preference pairs as text, for other trainers.

{table}.pref.jsonl, and a folder that `datasets.load_from_disk` loads, hold `chosen` and `rejected` as conversations.
OpenRLHF (--chosen_key chosen --rejected_key rejected, --apply_chat_template) and TRL's DPOTrainer read them.
"""

from pathlib import Path
from typing import Any

from workflow_scripts.core.files import write_dataset, write_jsonl
from workflow_scripts.core.records import conserve, read_records
from workflow_scripts.core.running.cli import add_code_argument, arguments, run
from workflow_scripts.core.running.manifest import write_manifest
from workflow_scripts.tasks.tabular.extraction import STATUSES


def preference(chosen: dict[str, Any], rejected: dict[str, Any]) -> dict[str, Any]:
    """Return the record of a pair of training rows, with {status, score} of both."""
    record: dict[str, Any] = {}

    for side, row in (("chosen", chosen), ("rejected", rejected)):
        record[side] = [
            {"role": "user", "content": row["question"]},
            {"role": "assistant", "content": row["answer"]},
        ]
        record[f"{side}_score"] = {"status": STATUSES[row["status"]], "score": row["score"]}

    return record


def main() -> None:
    parser = arguments(__doc__)
    add_code_argument(parser)
    parser.add_argument("--data", required=True, help="what construct_data wrote (.pkl)")
    parser.add_argument("--table", help="write the pairs of this table only (default: of all)")
    parser.add_argument("--folder", required=True, help="folder of the data set to write")
    parser.add_argument("--output", required=True, help="the .pref.jsonl to write")
    args = parser.parse_args()

    rows = [row for row in read_records(args.data) if args.table in (None, row["level"])]
    records = [preference(chosen, rejected) for chosen, rejected in zip(rows[::2], rows[1::2], strict=True)]
    conserve("gen_dpo", len(rows), 2 * len(records), 0)

    write_jsonl(args.output, records)
    write_dataset(args.folder, train=records)
    write_manifest(args.output, [args.data], {}, rows=len(records))
    print(f"{Path(args.output).name}: {len(records)} pairs")


if __name__ == "__main__":
    run(main)
