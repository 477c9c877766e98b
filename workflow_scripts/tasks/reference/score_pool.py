"""Score a model's answers to a pool of prompts against the references (BLEUBERI's create_training_data, part one).

Answers that exist already come from a .csv with id and response, the others from generate. The stage writes all answers
as a table with id, source, prompt and response, and the scores as {prompt's id: {score, metric}}, with a histogram.
"""

import csv
from pathlib import Path
from typing import Any

from workflow_scripts import rewards
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import replacing, write_json
from workflow_scripts.core.formats import existing_answers
from workflow_scripts.core.records import read_records
from workflow_scripts.core.running import plugins
from workflow_scripts.core.running.cli import add_code_argument, arguments, progress, run
from workflow_scripts.core.running.plots import figure
from workflow_scripts.tasks.defaults import mean
from workflow_scripts.tasks.reference.grading import answer_of


def read_answers(pool: list[dict[str, Any]], results: list[str], answered: str | None) -> dict[str, str]:
    """Return the answer to each prompt of the pool, by the prompt's id. Raise BadInput if one is missing."""
    answers = existing_answers(answered) if answered else {}
    for path in results:
        for record in read_records(path):
            answers[record["id"]] = record["answer"]

    if missing := [prompt["id"] for prompt in pool if prompt["id"] not in answers]:
        raise BadInput(f"{len(missing)} prompts of the pool have no answer; the first is {missing[0]}")

    return answers


def write_table(path: str | Path, pool: list[dict[str, Any]], answers: dict[str, str]) -> None:
    """Write the answers to the pool with the original's columns."""
    with replacing(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(["id", "source", "prompt", "response"])
        for prompt in pool:
            writer.writerow([prompt["id"], prompt["level"], prompt["question"], answers[prompt["id"]]])


def parts_of_scores(
    metric: str, reward_model: str | None, pool: list[dict[str, Any]], answers: dict[str, str]
) -> list[dict[str, float]]:
    """Return the rewards that the metric combines, by name, for the answer to each prompt of the pool."""
    parts = []

    for prompt in progress(pool, total=len(pool), desc="score_pool", unit="prompt"):
        text = answers[prompt["id"]]
        record = {"uid": prompt["id"], "answer": text} | prompt
        parts.append(rewards.compute_parts(metric, reward_model, answer_of(text), prompt["reference"], record))

    return parts


def plot_histogram(scores: list[float], metric: str, path: str) -> None:
    """Plot how many prompts have which score."""
    average = mean(scores)

    with figure(path) as [axis]:
        axis.hist(scores, bins=40)
        axis.axvline(average, color="black", lw=1, label=f"mean {average:.3f}")
        axis.set(xlabel=metric, ylabel="prompts")
        axis.legend()


def main() -> None:
    parser = arguments(__doc__)
    add_code_argument(parser)
    parser.add_argument("--pool", required=True, help="the frozen pool (.parquet)")
    parser.add_argument("--results", nargs="*", default=[], help="generated answers, all shards (.pkl)")
    parser.add_argument("--answered", help="answers that exist already (.csv with id and response)")
    names = ", ".join(plugins.names("rewards"))
    parser.add_argument("--metric", default="bleu", help=f"the score of an answer: {names}, or FILE.py:FUNCTION")
    parser.add_argument("--reward-model", help="for metrics computed by a model: its folder or its name on the hub")
    parser.add_argument("--inference", required=True, help="the table of all answers to write (.csv)")
    parser.add_argument("--histogram", required=True, help="the plot of the scores to write (.png)")
    parser.add_argument("--output", required=True, help="the scores to write (.json)")
    args = parser.parse_args()

    pool = list(read_records(args.pool))
    answers = read_answers(pool, args.results, args.answered)
    write_table(args.inference, pool, answers)

    parts = parts_of_scores(args.metric, args.reward_model, pool, answers)
    scores = rewards.combine(parts)
    plot_histogram(scores, args.metric, args.histogram)
    write_json(
        args.output,
        {prompt["id"]: {"score": score, "metric": args.metric} for prompt, score in zip(pool, scores)},
    )

    means = [f"mean {name} {mean(values[name] for values in parts):.4f}" for name in parts[0]]
    print(f"{len(pool)} prompts, {', '.join(means)}")


if __name__ == "__main__":
    run(main)
