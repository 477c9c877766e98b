"""Write the selected prompts as data sets for other trainers, with the columns of BLEUBERI's create_training_data.

`datasets.load_from_disk` loads them. The set for GRPO has one row per prompt with all references. The set for SFT has
one row per reference, with the id {id}_{number}. Rows are sorted by score, the highest first.
"""

from typing import Any

from workflow_scripts.core.files import read_json, write_dataset
from workflow_scripts.core.records import read_records
from workflow_scripts.core.running.cli import add_code_argument, arguments, run


def grpo_row(prompt: dict[str, Any], score: dict[str, Any]) -> dict[str, Any]:
    """Return the row of a prompt with all its references."""
    return {
        "id": prompt["id"],
        "source": prompt["level"],
        "prompt": prompt["question"],
        "messages": [{"role": "user", "content": prompt["question"]}],
        "ground_truth": prompt["reference"][0],
        "references": prompt["reference"],
        f"{score['metric']}_score": score["score"],
    }


def sft_rows(prompt: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one row for each reference of a prompt."""
    rows = []

    for number, text in enumerate(prompt["reference"]):
        messages = [{"role": "user", "content": prompt["question"]}, {"role": "assistant", "content": text}]
        rows.append({"id": f"{prompt['id']}_{number}", "source": prompt["level"], "messages": messages})

    return rows


def main() -> None:
    parser = arguments(__doc__)
    add_code_argument(parser)
    parser.add_argument("--prompts", required=True, help="the selected prompts (.parquet)")
    parser.add_argument("--scores", required=True, help="the scores that score_pool wrote (.json)")
    parser.add_argument("--grpo", required=True, help="folder of the data set for GRPO to write")
    parser.add_argument("--sft", required=True, help="folder of the data set for SFT to write")
    args = parser.parse_args()

    scores = read_json(args.scores)
    prompts = list(read_records(args.prompts))
    grpo = [grpo_row(prompt, scores[prompt["id"]]) for prompt in prompts]
    sft = [row for prompt in prompts for row in sft_rows(prompt)]

    write_dataset(args.grpo, train=grpo)
    write_dataset(args.sft, train=sft)
    print(f"{len(grpo)} rows for GRPO, {len(sft)} for SFT")


if __name__ == "__main__":
    run(main)
