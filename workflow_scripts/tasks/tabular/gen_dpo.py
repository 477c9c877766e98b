"""A round's preference pairs for other trainers (r{n}_s5_gen_dpo_train): what this one's training reads, as text.

{name}.pref.jsonl and a folder that `datasets.load_from_disk` loads, with chosen and rejected as conversations, as
OpenRLHF (--chosen_key chosen --rejected_key rejected, --apply_chat_template) and TRL's DPOTrainer take them.
"""

from pathlib import Path

from workflow_scripts.core.running.cli import arguments, run
from workflow_scripts.core.running.manifest import write_manifest
from workflow_scripts.core.files import write_dataset, write_jsonl
from workflow_scripts.core.records import conserve, read_records
from workflow_scripts.tasks.tabular.schemas import STATUSES


def pair(chosen: dict, rejected: dict) -> dict:
    """One record; scores are {status, score}."""
    found = {}
    for side, row in (("chosen", chosen), ("rejected", rejected)):
        asked = {"role": "user", "content": row["instruction"]}
        found[side] = [asked, {"role": "assistant", "content": row["output"]}]
        found[f"{side}_score"] = {"status": STATUSES[row["status"]], "score": row["score"]}
    return found


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--data", required=True, help="what construct_data wrote (.pkl)")
    parser.add_argument("--folder", required=True, help="folder of the data set to write")
    parser.add_argument("--output", required=True, help="the .pref.jsonl to write")
    args = parser.parse_args()
    rows = list(read_records(args.data))
    pairs = [pair(*two) for two in zip(rows[::2], rows[1::2], strict=True)]
    conserve("gen_dpo", len(rows), 2 * len(pairs), 0)
    write_jsonl(args.output, pairs)
    write_dataset(args.folder, train=pairs)
    write_manifest(args.output, [args.data], {}, rows=len(pairs))
    print(f"{Path(args.output).name}: {len(pairs)} pairs")


if __name__ == "__main__":
    run(main)
