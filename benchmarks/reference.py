"""What selection, objective and references do to BLEUBERI in miniature, each run from one checkpoint on 96 prompts.

    snakemake --profile local round0_checkpoint --configfile recipes/reference-tiny.yaml
    python -m benchmarks.reference                 # some 15 minutes: four runs

hard: GRPO on the prompts of a pool that the checkpoint answers worst; random: on any of them; one_reference: as hard,
with one reference in place of three as the reward; sft: supervised on the references of hard's prompts, as many passes
as hard has rounds. Held-out BLEU is against three references in all of them. Prints the figures, and writes
benchmarks/out/reference.svg.
"""

import argparse
from pathlib import Path

import yaml

from benchmarks.common import compared
from workflow_scripts.core.sections import Selection

ROUNDS, PROMPTS = 3, 96
START = Path("runs/reference-tiny/checkpoints/r0/model")
NAMES = ("hard", "random", "one_reference", "sft")


def config_of(name: str) -> dict:
    config = yaml.safe_load(Path("recipes/reference-tiny.yaml").read_text())
    del config["cold_start"], config["prompts"]["train"]
    if name == "sft":
        selected = f"made_up_bleu_compared-hard_1ref-gold_hard_{PROMPTS}_SFT"
        source = {"file": f"runs/compared-hard/data_sft/{selected}", "format": "sft"}
        config["data"] = {"tag": "sft", "source": source}
        config["train"] = {"objective": "sft", "lr": config["train"]["lr"], "batch_size": 32}
        return config
    config["prompts"]["pool"] = {"count": {"greet": 90, "thank": 100, "place": 90}}
    config["prompts"]["references"] = 1 if name == "one_reference" else 3
    mode = "random" if name == "random" else "hard"
    config["selection"] = Selection(mode=mode, num_examples=PROMPTS).model_dump()
    config["generate"]["pool"] = {"samples": 1, "temperature": 0.7, "max_tokens": 40, "turns": 1}
    return config


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    compared("reference", START, ROUNDS, {name: config_of(name) for name in NAMES})


if __name__ == "__main__":
    main()
