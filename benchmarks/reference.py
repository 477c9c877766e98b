"""What selection, objective and references do to BLEUBERI in miniature, each run from one checkpoint on 96 prompts.

    snakemake --profile local round0_checkpoint --configfile recipes/reference-tiny.yaml
    python -m benchmarks.reference                 # some 15 minutes: four runs

hard: GRPO on the prompts of a pool that the checkpoint answers worst; random: on any of them; one_reference: as hard,
with one reference in place of three as the reward; sft: supervised on the references of hard's prompts, as many passes
as hard has rounds. Held-out BLEU is against three references in all of them. Prints the figures, and writes
benchmarks/out/reference.svg.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import yaml

from benchmarks.common import OUT
from workflow_scripts.core.records import BadInput
from workflow_scripts.core.sections import Selection

ROUNDS, PROMPTS = 3, 96
START = Path("runs/reference-tiny/checkpoints/r0/model")
NAMES = ("hard", "random", "one_reference", "sft")


def config_of(name: str) -> dict:
    config = yaml.safe_load(Path("recipes/reference-tiny.yaml").read_text())
    config |= {"name": f"compared-{name}", "rounds": ROUNDS, "model": {"path": str(START)}}
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
    if not START.is_dir():
        raise BadInput(f"{START}: not there; make it with the first of the two commands")
    (OUT / "configs").mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        file = OUT / "configs" / f"{name}.yaml"
        file.write_text(yaml.safe_dump(config_of(name)))
        command = [sys.executable, "-m", "snakemake", "--profile", "local", f"round{ROUNDS}_checkpoint"]
        subprocess.run([*command, "--configfile", str(file)], check=True)
    runs = [f"runs/compared-{name}" for name in NAMES]
    command = [sys.executable, "-m", "workflow_scripts.report", "--task", "reference", "--run", *runs]
    for further in ([], ["--plot", str(OUT / "reference.svg")]):
        subprocess.run([*command, *further], check=True)


if __name__ == "__main__":
    main()
