"""Graded answers of a run as the Parquet file that CodeRL trains on: `uid`, `prompt_pretokenized` (a user message and
the beginning of the answer, here empty, as JSON), `accuracy`, `normalized_reward` and `unprocessed_response`.

CodeRL does not say how it normalised rewards. Here: minus the mean of the question's answers, divided by their standard
deviation, and 0 where all are alike. Answers that were cut off are left out: training would end them with EOS. By hand:

    python -m workflow_scripts.export_rewarded --results runs/arithmetic/results/r1/auto/*_matchlog.pkl \\
        --output /tmp/rewarded.parquet
"""

import json

from workflow_scripts.core.advantages import advantages
from workflow_scripts.core.cli import arguments, run
from workflow_scripts.core.manifest import write_manifest
from workflow_scripts.core.records import BadInput, conserve, read_records, write_parquet

COMPLETE = ("eos", "imported")  # finish reasons of answers that ended by themselves


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--results", required=True, nargs="+", help="graded shards (…_matchlog.pkl)")
    parser.add_argument("--output", required=True, help="the .parquet to write")
    args = parser.parse_args()
    records = [record for path in args.results for record in read_records(path)]
    whole = [record for record in records if record["finish"] in COMPLETE and record["solution"].strip()]
    if not whole:
        raise BadInput(f"{', '.join(args.results)}: none of {len(records)} answers is complete")
    accuracy = [float(record["match"][0]["res"]) for record in whole]
    normalized = advantages(accuracy, [record["question"] for record in whole], "group_std")
    rows = [
        {
            "uid": record["uid"],
            "prompt_pretokenized": json.dumps(
                [{"role": "user", "content": record["question"]}, {"role": "assistant", "content": ""}],
                ensure_ascii=False,
            ),
            "accuracy": right,
            "normalized_reward": value or 0.0,
            "unprocessed_response": record["solution"],
        }
        for record, right, value in zip(whole, accuracy, normalized)
    ]
    cut = sum(record["finish"] not in COMPLETE or not record["solution"].strip() for record in records)
    conserve("export_rewarded", len(records), len(rows), cut)
    write_parquet(args.output, rows)
    write_manifest(args.output, args.results, {}, rows=len(rows), cut=cut)
    print(f"{args.output}: {len(rows)} answers, {sum(accuracy):.0f} of them right; {cut} cut off or empty")


if __name__ == "__main__":
    run(main)
