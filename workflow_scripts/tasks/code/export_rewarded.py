"""Write graded answers of a run as the Parquet file that CodeRL trains on.

Columns: `uid`, `prompt_pretokenized` (a user message and the beginning of the answer, here empty, as JSON text),
`accuracy`, `normalized_reward` and `unprocessed_response`. CodeRL does not say how it normalised rewards. Here it is
the reward minus the mean of the question's answers, divided by their standard deviation, and 0 where all are alike.
Answers that were cut off are left out, because training would end them with EOS.

    python -m workflow_scripts.tasks.code.export_rewarded --results runs/arithmetic/results/r1/auto/*_matchlog.pkl \\
        --output data/rewarded.parquet
"""

import json
from typing import Any

from workflow_scripts.core.advantages import advantages
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import write_parquet
from workflow_scripts.core.records import conserve, read_records
from workflow_scripts.core.running.cli import arguments, run
from workflow_scripts.core.running.manifest import write_manifest

COMPLETE = ("eos", "imported")  # finish reasons of answers that ended by themselves


def is_complete(record: dict[str, Any]) -> bool:
    """Return whether an answer ended by itself and is not empty."""
    return record["finish"] in COMPLETE and bool(record["answer"].strip())


def rewarded_row(record: dict[str, Any], normalized: float | None) -> dict[str, Any]:
    """Return an answer as a row of CodeRL's file."""
    prompt = [{"role": "user", "content": record["question"]}, {"role": "assistant", "content": ""}]
    return {
        "uid": record["uid"],
        "prompt_pretokenized": json.dumps(prompt, ensure_ascii=False),
        "accuracy": record["reward"],
        "normalized_reward": normalized or 0.0,
        "unprocessed_response": record["answer"],
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--results", required=True, nargs="+", help="graded shards (…_matchlog.pkl)")
    parser.add_argument("--output", required=True, help="the .parquet to write")
    args = parser.parse_args()

    records = [record for path in args.results for record in read_records(path)]
    complete = [record for record in records if is_complete(record)]
    if not complete:
        raise BadInput(f"{', '.join(args.results)}: none of {len(records)} answers is complete")

    rewards = [record["reward"] for record in complete]
    normalized = advantages(rewards, [record["question"] for record in complete], "group_std")
    rows = [rewarded_row(record, value) for record, value in zip(complete, normalized)]
    cut_off = len(records) - len(complete)
    conserve("export_rewarded", len(records), len(rows), cut_off)

    write_parquet(args.output, rows)
    write_manifest(args.output, args.results, {}, rows=len(rows), cut_off=cut_off)
    print(f"{args.output}: {len(rows)} answers, {sum(rewards):.0f} of them right; {cut_off} cut off or empty")


if __name__ == "__main__":
    run(main)
