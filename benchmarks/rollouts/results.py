"""The form of the results, and the file that they are written to."""

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.common import OUT
from workflow_scripts.core.files import read_json, write_json

FILE = OUT / "rollouts.json"


def value(name: str, values: Sequence[float], unit: str) -> dict[str, Any]:
    """Return the result of a measurement without a peer: the median of its repeats."""
    return {
        "name": name,
        "value": statistics.median(values),
        "interval": [min(values), max(values)],
        "unit": unit,
        "peer_name": None,
        "peer_version": None,
    }


def comparison(
    name: str, ours: Sequence[float], peer: Sequence[float], unit: str, peer_name: str, peer_version: str
) -> dict[str, Any]:
    """Return the result of repeats that were measured in turn: medians, and the median and range of their ratios."""
    ratios = [own / other for own, other in zip(ours, peer, strict=True)]
    return {
        "name": name,
        "ours": statistics.median(ours),
        "peer": statistics.median(peer),
        "ratio": statistics.median(ratios),
        "interval": [min(ratios), max(ratios)],
        "unit": unit,
        "peer_name": peer_name,
        "peer_version": peer_version,
    }


def publish(results: list[dict[str, Any]]) -> None:
    """Print results and write them. Results of other names in the file are kept."""
    kept = {result["name"]: result for result in (read_json(FILE) if FILE.exists() else [])}
    kept |= {result["name"]: result for result in results}
    write_json(FILE, list(kept.values()))

    for result in results:
        low, high = result["interval"]
        measured = f"{result['value']:.3g}" if "value" in result else (
            f"{result['ours']:.3g} against {result['peer']:.3g} of {result['peer_name']}: ratio {result['ratio']:.2f}"
        )  # fmt: skip
        print(f"{result['name']}: {measured} [{low:.3g}, {high:.3g}] {result['unit']}", flush=True)
