"""Compare selection, objective and references in BLEUBERI in miniature, each run from one checkpoint on 96 prompts.

    snakemake --profile local round0_checkpoint --configfile recipes/reference-tiny.yaml
    python -m benchmarks.reference                 # about 15 minutes: four runs

    hard             GRPO on the prompts of a pool that the checkpoint answers worst
    random           GRPO on any prompts of the pool
    one_reference    as hard, with one reference in place of three as the reward
    sft              supervised on the references of hard's prompts, as many passes as hard has rounds

Held-out BLEU is against three references in all of them. It prints the metrics and writes
benchmarks/out/reference.svg.
"""

import argparse
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common import compare_runs

ROUNDS = 3
PROMPTS = 96
START = Path("runs/reference-tiny/checkpoints/r0/model")
NAMES = ("hard", "random", "one_reference", "sft")


def config_of(name: str) -> dict[str, Any]:
    """Return the config of a run."""
    config = yaml.safe_load(Path("recipes/reference-tiny.yaml").read_text())
    del config["cold_start"]
    del config["prompts"]["train"]

    if name == "sft":
        selected = f"made_up_bleu_compared-hard_1ref-gold_hard_{PROMPTS}_SFT"
        source = {"file": f"runs/compared-hard/data_sft/{selected}", "format": "sft"}
        config["data"] = {"tag": "sft", "source": source}
        config["train"] = {"objective": "sft", "lr": config["train"]["lr"], "batch_size": 32}
        return config

    config["prompts"]["pool"] = {"count": {"greet": 90, "thank": 100, "place": 90}}
    config["reference"] = {
        "references": 1 if name == "one_reference" else 3,
        "selection": {"mode": "random" if name == "random" else "hard", "num_examples": PROMPTS},
    }
    config["generate"]["pool"] = {"samples": 1, "temperature": 0.7, "max_tokens": 40, "turns": 1}
    return config


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    compare_runs("reference", START, ROUNDS, {name: config_of(name) for name in NAMES})


if __name__ == "__main__":
    main()
