"""Figures of training that have no peer, and the floors of those that have one. `make bench-training` ends with this.

    python -m benchmarks.figures              # benchmarks/out/training.json
    python -m benchmarks.figures --no-floors  # without benchmarks.training before it

    useful_tokens_…     tokens of the ranks over those that they wait for, for the lengths of recipes, with as many rows
                        per rank and update as on the recipe's own number of ranks
    memory_error_…      |predicted - measured| / measured (benchmarks/memory.py)
    certified_families  of tests/training/families.py

The exit status is 1 if a figure misses its bound.
"""

import argparse
import math
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks import memory
from benchmarks.common import OUT, publish_values
from tests.training.families import FAMILIES, verdict
from workflow_scripts.config.sections import Train
from workflow_scripts.core.files import read_json
from workflow_scripts.training import bins

REPOSITORY = Path(__file__).parents[1]
MEDIANS = {"math": 600, "code": 700}  # tokens of a row of the recipe; lengths are lognormal with σ 0.5
WORLDS = (8, 64)
UPDATES = 20
LEAST_USEFUL = 0.92
LEAST_FAMILIES = 12

# The least ratio of a comparison of benchmarks/training.py.
FLOORS = {
    "scoring_vs_padded_body": 2.5,
    "sft_vs_trl_best_body": 1.8,
    "dpo_vs_trl_body": 2.5,
    "round_off_policy_vs_recompute_1_epochs_body": 2.5,
}


def value(name: str, number: float, unit: str) -> dict[str, Any]:
    """Return a result without a peer."""
    return {"name": name, "value": number, "interval": None, "unit": unit, "peer_name": None, "peer_version": None}


def useful_tokens() -> Iterator[dict[str, Any]]:
    """Yield the share of useful tokens: those of all ranks over ranks times those of the fullest, step by step."""
    for recipe, median in MEDIANS.items():
        settings = Train(**yaml.safe_load((REPOSITORY / f"recipes/{recipe}.yaml").read_text())["train"])

        for world in WORLDS:
            batch_size = settings.batch_size * world // settings.processes
            drawn = np.random.default_rng(0).lognormal(np.log(median), 0.5, UPDATES * batch_size)
            lengths = np.clip(drawn, 4, settings.max_length).astype(int).tolist()
            planned, _ = bins.plan(lengths, batch_size, 1, settings.tokens_per_bin, 0, world)
            loads = np.array([sum(lengths[unit] for unit in bin_.units) for bin_ in planned]).reshape(-1, world)
            share = loads.sum() / (world * loads.max(axis=1).sum())
            yield value(f"useful_tokens_{recipe}_{world}_ranks", float(share), "share")


def memory_errors() -> Iterator[dict[str, Any]]:
    """Yield the error of each prediction of memory."""
    for result in memory.measure(list(memory.SHAPES)):
        names = (result["shape"], result["stage"].replace(", ", "_"), result["dtype"], f"{result['ranks']}_ranks")
        yield value(f"memory_error_{'_'.join(names)}", memory.error_of(result), "share of the measured peak")


def certified_families() -> dict[str, Any]:
    """Return how many families of models are certified."""
    count = 0
    for name in FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            count += verdict(name, Path(folder)) == "certified"
    return value("certified_families", count, f"of {len(FAMILIES)}")


def misses(results: list[dict[str, Any]], with_floors: bool) -> Iterator[str]:
    """Yield what misses its bound."""
    for result in results:
        name, number = result["name"], result.get("value", math.nan)
        if name.startswith("useful_tokens") and number < LEAST_USEFUL:
            yield f"{name}: {number:.3f} is below {LEAST_USEFUL}"
        if name.startswith("memory_error") and number > memory.BOUND:
            yield f"{name}: {number:.3f} is above {memory.BOUND}"
        if name == "certified_families" and number < LEAST_FAMILIES:
            yield f"{name}: {number} is below {LEAST_FAMILIES}"

    if with_floors:
        ratios = {result["name"]: result["ratio"] for result in results if "ratio" in result}
        for name, least in FLOORS.items():
            if name not in ratios:
                yield f"{name}: was not measured; run benchmarks.training first"
            elif ratios[name] < least:
                yield f"{name}: ratio {ratios[name]:.2f} is below {least}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-floors", action="store_true", help="do not check the floors of comparisons")
    args = parser.parse_args()
    torch.set_num_threads(1)

    publish_values("training", [*useful_tokens(), *memory_errors(), certified_families()])
    missed = list(misses(read_json(OUT / "training.json"), not args.no_floors))
    print("\n".join(missed) or "all bounds are kept")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
