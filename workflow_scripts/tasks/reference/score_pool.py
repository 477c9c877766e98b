"""Score a model's answers to a pool of prompts against their references (BLEUBERI's create_training_data, part one).

Answers that exist already come from a .csv with id and response, the others from generate. Written are all answers as
INFERENCE.csv (id, source, prompt, response), and OUTPUT.json: {id: {score, metric}}, with a histogram beside it.
"""

import csv
import json

from workflow_scripts.core import rewards
from workflow_scripts.rewards.bleu import answer_of
from workflow_scripts.core.running.cli import arguments, progress, run
from workflow_scripts.core.formats import existing_answers
from workflow_scripts.core.running.plots import plotted
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import replacing, write_json
from workflow_scripts.core.records import read_records


def histogram(scores: list[float], metric: str, path: str) -> None:
    with plotted(path) as [axis]:
        axis.hist(scores, bins=40)
        axis.axvline(sum(scores) / len(scores), color="black", lw=1, label=f"mean {sum(scores) / len(scores):.3f}")
        axis.set(xlabel=metric, ylabel="prompts")
        axis.legend()


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--pool", required=True, help="the frozen pool (.parquet)")
    parser.add_argument("--results", nargs="*", default=[], help="generated answers, all shards (.pkl)")
    parser.add_argument("--answered", help="answers that exist already (.csv with id and response)")
    parser.add_argument("--metric", default="bleu", help=f"{', '.join(rewards.REWARDS)}, or FILE.py:FUNCTION")
    parser.add_argument("--reward-model", help="of metrics that a model gives: a folder, or a name on the hub")
    parser.add_argument("--inference", required=True, help="the .csv of all answers to write")
    parser.add_argument("--histogram", required=True, help="the .png to write")
    parser.add_argument("--output", required=True, help="the .json of all scores to write")
    args = parser.parse_args()
    texts = existing_answers(args.answered) if args.answered else {}
    texts |= {result["id"]: result["solution"] for path in args.results for result in read_records(path)}
    pool = list(read_records(args.pool))
    if missing := [record["id"] for record in pool if record["id"] not in texts]:
        raise BadInput(f"{args.pool}: {len(missing)} prompts have no answer, the first is {missing[0]}")
    parts = []
    with replacing(args.inference) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(["id", "source", "prompt", "response"])
        for record in progress(pool, total=len(pool), desc="score_pool", unit="prompt"):
            text = texts[record["id"]]
            writer.writerow([record["id"], record["level"], record["question"], text])
            judged = {"uid": record["id"], "solution": text} | record
            references = json.loads(record["answer"])
            parts.append(rewards.parts(args.metric, args.reward_model, answer_of(text), references, judged))
    values = rewards.combined(parts)
    histogram(values, args.metric, args.histogram)
    write_json(args.output, {one["id"]: {"score": v, "metric": args.metric} for one, v in zip(pool, values)})
    means = (f"mean {name} {sum(one[name] for one in parts) / len(parts):.4f}" for name in parts[0])
    print(f"{len(pool)} prompts, {', '.join(means)}")


if __name__ == "__main__":
    run(main)
