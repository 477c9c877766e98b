"""A reward model trained on generated pairs, and a round that it rewards.

    python -m benchmarks.rewards reward_model

A small model learns to answer the instructions of the reference twin, mostly tersely or beside the point. Its answers
of round 1, graded by BLEU, become preference pairs (`export_pairs`). The run then trains a reward model on them
(`train_reward_model`), which is certified on held-out pairs, and the same answers are rewarded by it alone. Round 1
learns from that. BLEU, which the rewards no longer contain, tells whether the round learnt what was meant.
"""

import tempfile
from pathlib import Path
from typing import Any

from tests.harness import Copy
from workflow_scripts.core.files import read_json

LEVELS = ("greet", "thank", "place")
RUN = "runs/twin"
PAIRS = "data/pairs.jsonl"
LEAST_ACCURACY = 0.9  # of the reward model on held-out pairs: the run stops below


def config_of_twin() -> dict[str, Any]:
    """Return the reference twin with a smaller model and fewer examples, which take a minute."""
    sampling = {"max_tokens": 32, "turns": 1}
    return {
        "name": "twin",
        "task": "reference",
        "rounds": 1,
        "seed": 0,
        "shards": 1,
        "reward": "bleu",
        "prompts": {"train": {"count": dict.fromkeys(LEVELS, 40)}, "eval": {"count": dict.fromkeys(LEVELS, 20)}},
        "model": {
            "scratch": {"layers": 2, "width": 64, "heads": 2, "mlp_width": 192, "vocabulary": 384, "context": 256}
        },
        "cold_start": {
            "count": dict.fromkeys(LEVELS, 1200),
            "train": {"lr": 4e-3, "schedule": "linear", "adam_beta2": 0.98, "batch_size": 32, "threads": 1},
        },
        "generate": {
            "auto": {"samples": 8} | sampling,
            "trigger": None,
            "eval": {"samples": 1, "temperature": 0} | sampling,
        },
        "data": {"advantage": "group_std", "tag": "rm"},
        "train": {
            "objective": "clip",
            "lr": 1e-3,
            "adam_eps": 1e-5,
            "kl": 0.04,
            "epochs": 2,
            "batch_size": 32,
            "threads": 1,
        },
        "wandb": {"mode": "disabled"},
    }


def config_with_reward_model() -> dict[str, Any]:
    """Return the twin's config in which a reward model of the run's own is the reward."""
    training = {"file": PAIRS, "base": f"{RUN}/checkpoints/r0/model", "held_out": 0.25, "threads": 1}
    training |= {"lr": 1e-3, "batch_size": 16, "epochs": 3, "least_accuracy": LEAST_ACCURACY}
    part = {"reward": "reward_model", "model": "trained"}
    return config_of_twin() | {"reward": [part], "train_reward_model": training}


def run_twin(folder: Path) -> dict[str, Any]:
    """Run the twin in a folder. Return the certificate, the number of pairs, the metrics before and after the round,
    and what Snakemake printed for the run with the reward model.
    """
    copy = Copy(folder, config_of_twin())
    copy.snakemake("round1_graded", "round0_evaluation", "--cores", "2")
    print(copy.run("workflow_scripts.export_pairs", "--results", *graded(folder), "--margin", "0.1", "--output", PAIRS))

    copy.configure(config_with_reward_model())
    output = copy.snakemake("round0_evaluation", "round1_evaluation", "--cores", "2")
    return {
        "output": output,
        "certificate": read_json(folder / RUN / "reward_model/checkpoint.json")["certificate"],
        "pairs": read_json(folder / "data/pairs.json")["pairs"],
        "before": read_json(folder / RUN / "evaluation/r0.json"),
        "after": read_json(folder / RUN / "evaluation/r1.json"),
    }


def graded(folder: Path) -> list[str]:
    """Return the graded answers of round 1."""
    paths = (folder / RUN / "results/r1/auto").glob("*_matchlog.pkl")
    return sorted(str(path.relative_to(folder)) for path in paths)


def measure() -> list[dict[str, Any]]:
    """Return the accuracy on held-out pairs, and the metrics of the round that the reward model rewards."""
    with tempfile.TemporaryDirectory() as name:
        twin = run_twin(Path(name) / "twin")

    certificate = twin["certificate"]
    results = [
        {
            "name": "reward_model_held_out_accuracy",
            "value": certificate["accuracy"],
            "interval": [certificate["low"], certificate["high"]],
            "unit": f"share of {certificate['pairs']} pairs",
        }
    ]
    for metric, label in (("part reward_model", "mean score of the reward model"), ("bleu", "BLEU")):
        for when, words in (("before", "before"), ("after", "after")):
            limits = twin[when]["intervals"][metric]
            results.append(
                {
                    "name": f"{label}, {words} the round that it rewards",
                    "value": twin[when][metric],
                    "interval": [limits["low"], limits["high"]],
                    "unit": f"mean of {twin[when]['n']} answers",
                }
            )
    return results
