"""Take the scores of a pool's prompts that exist, in place of answering and scoring the pool.

The file is BLEUBERI's `scored_outputs/….json`, {prompt's id: {score, metric}}; or records (.jsonl, .json, .csv,
.parquet, or a folder of `datasets`, such as its `data_grpo/…`) with `id` and `{metric}_score` or `score`. Each prompt
of the pool needs a score. Scores of other prompts are left out.

    python -m workflow_scripts.tasks.reference.import_scores --pool runs/reference/prompts/pool.parquet \\
        --scores scored_outputs/pool_bleu_mine_1ref-gold.json --histogram /tmp/scores.png --output /tmp/scores.json
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json, write_json
from workflow_scripts.core.records import read_records
from workflow_scripts.core.running.cli import add_code_argument, arguments, run
from workflow_scripts.core.sources import read_source
from workflow_scripts.tasks.defaults import mean
from workflow_scripts.tasks.reference.score_pool import plot_histogram

FORMS = "{id: {score, metric}}, or records with id and `{metric}_score` or `score`"


def scored_prompts(path: str, metric: str) -> Iterator[tuple[str, Any]]:
    """Yield (prompt's id, score) of a file. Raise BadInput for a record in another form or of another metric."""
    by_id = read_json(path) if is_mapping(path) else None

    if isinstance(by_id, dict):
        for prompt_id, value in by_id.items():
            if not isinstance(value, dict) or "score" not in value:
                raise BadInput(f"{path}, {prompt_id}: should be an object with score and metric, found {value!r:.60}")
            if value.get("metric", metric) != metric:
                raise BadInput(
                    f"{path}, {prompt_id}: is scored by {value['metric']}, but reference.selection.metric is {metric}"
                )
            yield prompt_id, value["score"]
        return

    for number, record in enumerate(read_source(path, "train"), 1):
        key = next((name for name in (f"{metric}_score", "score") if name in record), None)
        if record.get("id") in (None, "") or key is None:
            keys = ", ".join(map(str, record)) or "none"
            raise BadInput(f"{path}, record {number}: its keys are {keys}; the known forms are {FORMS}, with {metric}")
        yield str(record["id"]), record[key]


def is_mapping(path: str) -> bool:
    """Return whether a file is one JSON object, rather than records."""
    if Path(path).suffix != ".json":
        return False
    with open(path, encoding="utf-8-sig") as file:
        start = file.read(200).lstrip()
    return start.startswith("{") and '"id"' not in start.split(":")[0]


def read_scores(path: str, metric: str, pool: list[str]) -> dict[str, float]:
    """Return the score of each prompt of the pool. Raise BadInput if one is missing, comes twice or is no number."""
    scores: dict[str, float] = {}

    for prompt_id, value in scored_prompts(path, metric):
        if prompt_id in scores:
            raise BadInput(f"{path}: the prompt {prompt_id} has two scores; ids must be unique")
        try:
            scores[prompt_id] = float(value)
        except (TypeError, ValueError):
            scores[prompt_id] = math.nan
        if not math.isfinite(scores[prompt_id]):
            raise BadInput(f"{path}, {prompt_id}: the score should be a finite number, found {value!r:.60}")

    if missing := [prompt_id for prompt_id in pool if prompt_id not in scores]:
        raise BadInput(
            f"{path}: {len(missing)} of {len(pool)} prompts of the pool have no score; the first is {missing[0]}. "
            f"The file has {len(scores)} scores; the known forms are {FORMS}"
        )

    return {prompt_id: scores[prompt_id] for prompt_id in pool}


def main() -> None:
    parser = arguments(__doc__)
    add_code_argument(parser)
    parser.add_argument("--pool", required=True, help="the frozen pool (.parquet)")
    parser.add_argument("--scores", required=True, help="the file or folder with scores")
    parser.add_argument("--metric", default="bleu", help="the metric that the scores are of")
    parser.add_argument("--histogram", required=True, help="the plot of the scores to write (.png)")
    parser.add_argument("--output", required=True, help="the scores to write (.json)")
    args = parser.parse_args()

    pool = [record["id"] for record in read_records(args.pool)]
    scores = read_scores(args.scores, args.metric, pool)

    plot_histogram(list(scores.values()), args.metric, args.histogram)
    write_json(args.output, {prompt_id: {"score": score, "metric": args.metric} for prompt_id, score in scores.items()})
    print(f"{len(scores)} prompts, mean {args.metric} {mean(scores.values()):.4f}")


if __name__ == "__main__":
    run(main)
