"""The selected prompts as data sets for other trainers, as BLEUBERI's create_training_data leaves them.

`datasets.load_from_disk` loads them: for GRPO one row per prompt, with all references; for SFT one row per reference,
with the id {id}_{number}. Rows are sorted by score, the highest first.
"""

import json

from workflow_scripts.core.running.cli import arguments, run
from workflow_scripts.core.files import read_json, write_dataset
from workflow_scripts.core.records import read_records


def grpo_row(record: dict, score: dict) -> dict:
    references = json.loads(record["answer"])
    row = {"id": record["id"], "source": record["level"], "prompt": record["question"]}
    row |= {"messages": [{"role": "user", "content": record["question"]}], "ground_truth": references[0]}
    return row | {"references": references, f"{score['metric']}_score": score["score"]}


def sft_rows(record: dict) -> list[dict]:
    asked = {"role": "user", "content": record["question"]}
    return [
        {"id": f"{record['id']}_{j}", "source": record["level"]}
        | {"messages": [asked, {"role": "assistant", "content": text}]}
        for j, text in enumerate(json.loads(record["answer"]))
    ]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--prompts", required=True, help="the selected prompts (.parquet)")
    parser.add_argument("--scores", required=True, help="what score_pool wrote (.json)")
    parser.add_argument("--grpo", required=True, help="folder of the data set for GRPO to write")
    parser.add_argument("--sft", required=True, help="folder of the data set for SFT to write")
    args = parser.parse_args()
    scores, prompts = read_json(args.scores), list(read_records(args.prompts))
    sft = [row for record in prompts for row in sft_rows(record)]
    write_dataset(args.grpo, train=[grpo_row(record, scores[record["id"]]) for record in prompts])
    write_dataset(args.sft, train=sft)
    print(f"{len(prompts)} rows for GRPO, {len(sft)} for SFT")


if __name__ == "__main__":
    run(main)
