"""Compare the upper clip bound and a teacher's beginnings in TART in miniature, each run from one checkpoint.

    snakemake --profile local round0_checkpoint --configfile recipes/recommend-tiny.yaml
    python -m benchmarks.recommend                 # about 20 minutes: three runs

    recipe       as recipes/recommend-tiny.yaml
    e_high_20    clip_high is 0.2, as low as clip_low
    tgi          rollouts start from the teacher's dialogues, cut so that two interactions remain

It prints the metrics and writes benchmarks/out/recommend.svg.
"""

import argparse
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common import compare_runs

ROUNDS = 3
START = Path("runs/recommend-tiny/checkpoints/r0/model")


def config_of(**changes: dict[str, Any]) -> dict[str, Any]:
    """Return the recipe with other values in its sections, and without its cold start."""
    config = yaml.safe_load(Path("recipes/recommend-tiny.yaml").read_text())
    del config["cold_start"]
    return config | {section: config[section] | values for section, values in changes.items()}


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    configs = {
        "recipe": config_of(),
        "e_high_20": config_of(train={"clip_high": 0.2}),
        "tgi": config_of(recommend={"tgi": True}),
    }
    compare_runs("recommend", START, ROUNDS, configs)


if __name__ == "__main__":
    main()
