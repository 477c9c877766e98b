"""What the upper clip bound and a teacher's beginnings do to TART in miniature, each run from one checkpoint.

    snakemake --profile local round0_checkpoint --configfile recipes/recommend-tiny.yaml
    python -m benchmarks.recommend                 # some 20 minutes: three runs

recipe: as recipes/recommend-tiny.yaml; e_high_20: clip_high 0.2, as low as clip_low; tgi: rollouts start from the
teacher's dialogues, cut so that two interactions remain. Prints the figures, and writes benchmarks/out/recommend.svg.
"""

import argparse
from pathlib import Path

import yaml

from benchmarks.common import compared

ROUNDS = 3
START = Path("runs/recommend-tiny/checkpoints/r0/model")


def config_of(**changes: dict) -> dict:
    """The recipe with other values in its sections, without its cold start."""
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
    compared("recommend", START, ROUNDS, configs)


if __name__ == "__main__":
    main()
