"""Helpers of all measurements: interleaved timing, the table, and the JSON that they leave behind."""

import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.table import Table
from transformers import TrainerCallback

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json, write_json

OUT = Path(__file__).parent / "out"

# ---------------------------------------------------------------- time


def interleaved(ours: Callable[[], float], peer: Callable[[], float], repeats: int = 3) -> tuple[float, float]:
    """Return the medians of what both return. They are called in turn, so that a slow minute hits both."""
    of_ours, of_peer = zip(*in_turn(ours, peer, repeats))
    return statistics.median(of_ours), statistics.median(of_peer)


def in_turn(ours: Callable[[], float], peer: Callable[[], float], repeats: int) -> list[tuple[float, float]]:
    """Return what both return, repeat by repeat, called in turn."""
    return [(ours(), peer()) for _ in range(repeats)]


def now() -> float:
    """Return the time in seconds, once the device has done its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return perf_counter()


class Clock(TrainerCallback):
    """Notes when a Trainer's first update began and when each ended. Nothing is saved."""

    def __init__(self):
        self.begin: float | None = None
        self.ends: list[float] = []

    def on_step_begin(self, args, state, control, **_):
        self.begin = self.begin or now()

    def on_step_end(self, args, state, control, **_):
        self.ends.append(now())
        control.should_save = False


def gemm_flops(size: int = 1024, repeats: int = 8) -> float:
    """Return the operations per second of this machine's own matrix product, fp32, with the threads that are set."""
    left, right = torch.randn(size, size), torch.randn(size, size)
    rates = []

    for _ in range(repeats):
        start = perf_counter()
        torch.mm(left, right)
        rates.append(2 * size**3 / (perf_counter() - start))

    return statistics.median(rates)


# ---------------------------------------------------------------- results


def row(
    name: str, ours: float, peer: float, unit: str, peer_name: str, peer_version: str, **more: Any
) -> dict[str, Any]:
    """Return one result. A `ratio` above 1 means that ours is better: more per second, or fewer seconds or bytes."""
    return {
        "name": name,
        "ours": ours,
        "peer": peer,
        "ratio": ours / peer if unit.endswith("/s") else peer / ours,
        "unit": unit,
        "peer_name": peer_name,
        "peer_version": peer_version,
        **more,
    }


def publish(file: str, rows: list[dict[str, Any]]) -> None:
    """Print the results as a table and write them as JSON. Results of other names in the file are kept."""
    path = OUT / f"{file}.json"
    results = {result["name"]: result for result in (read_json(path) if path.exists() else [])}
    results |= {result["name"]: result for result in rows}
    write_json(path, list(results.values()))

    extra = [key for key in rows[0] if key not in row("", 1, 1, "", "", "")]
    table = Table("name", "ours", "peer", "ratio", "unit", "peer", *extra, title=str(path))
    for result in rows:
        further = [_text(result[key]) for key in extra]
        table.add_row(
            result["name"],
            f"{result['ours']:.4g}",
            f"{result['peer']:.4g}",
            f"{result['ratio']:.2f}",
            result["unit"],
            f"{result['peer_name']} {result['peer_version']}",
            *further,
        )
    Console(width=180).print(table)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " to ".join(map(_text, value))
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def publish_values(file: str, rows: list[dict[str, Any]]) -> None:
    """Print results that have a `value` and no peer, and write them as `publish` does."""
    path = OUT / f"{file}.json"
    results = {result["name"]: result for result in (read_json(path) if path.exists() else [])}
    write_json(path, list((results | {result["name"]: result for result in rows}).values()))

    table = Table("name", "value", "unit", title=str(path))
    for result in rows:
        table.add_row(result["name"], _text(result["value"]), result["unit"])
    Console(width=120).print(table)


# ---------------------------------------------------------------- runs beside one another


def compare_runs(task: str, start: Path, rounds: int, configs: dict[str, dict[str, Any]]) -> None:
    """Run the rounds of each config, {name: config}, from the model in `start`; print the metrics and draw the curves.

    The curves go into benchmarks/out/{task}.svg.
    """
    if not start.is_dir():
        raise BadInput(f"{start}: there is no model; make it with the first command of the description (--help)")

    (OUT / "configs").mkdir(parents=True, exist_ok=True)
    for name, config in configs.items():
        file = OUT / "configs" / f"{name}.yaml"
        whole = config | {"name": f"compared-{name}", "rounds": rounds, "model": {"path": str(start)}}
        file.write_text(yaml.safe_dump(whole))
        command = [sys.executable, "-m", "snakemake", "--profile", "local", f"round{rounds}_checkpoint"]
        subprocess.run([*command, "--configfile", str(file)], check=True)

    runs = [f"runs/compared-{name}" for name in configs]
    command = [sys.executable, "-m", "workflow_scripts.report", "--task", task, "--run", *runs]
    subprocess.run(command, check=True)
    subprocess.run([*command, "--plot", str(OUT / f"{task}.svg")], check=True)
