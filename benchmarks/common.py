"""What the measurements share: interleaved timing, the table, and the JSON that they leave behind."""

import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import torch
import yaml
from rich.console import Console
from rich.table import Table
from transformers import TrainerCallback

from workflow_scripts.core.records import BadInput, read_json, write_json

OUT = Path(__file__).parent / "out"


def interleaved(ours: Callable[[], float], peer: Callable[[], float], repeats: int = 3) -> tuple[float, float]:
    """Medians of what both return, called in turn, so that a slow minute hits both."""
    pairs = [(ours(), peer()) for _ in range(repeats)]
    return tuple(statistics.median(values) for values in zip(*pairs))


def now() -> float:
    """Seconds, once the device has done what it was asked."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return perf_counter()


class Clock(TrainerCallback):
    """When a Trainer's first update began and when each ended; nothing is saved."""

    def __init__(self):
        self.begin, self.ends = None, []

    def on_step_begin(self, args, state, control, **_):
        self.begin = self.begin or now()

    def on_step_end(self, args, state, control, **_):
        self.ends.append(now())
        control.should_save = False


def gemm_flops(size: int = 1024, repeats: int = 8) -> float:
    """Operations per second of this machine's own matrix product, fp32, with the threads set."""
    left, right, found = torch.randn(size, size), torch.randn(size, size), []
    for _ in range(repeats):
        start = perf_counter()
        torch.mm(left, right)
        found.append(2 * size**3 / (perf_counter() - start))
    return statistics.median(found)


def row(name: str, ours: float, peer: float, unit: str, peer_name: str, peer_version: str, **more) -> dict:
    """One result; `ratio` above 1 means that ours is better: more per second, or fewer seconds or bytes."""
    ratio = ours / peer if unit.endswith("/s") else peer / ours
    return {"name": name, "ours": ours, "peer": peer, "ratio": ratio, "unit": unit} | {
        "peer_name": peer_name, "peer_version": peer_version, **more
    }  # fmt: skip


def publish(file: str, rows: list[dict]) -> None:
    """Print the table and write it as JSON, rows of other names in the file kept."""
    path = OUT / f"{file}.json"
    kept = {one["name"]: one for one in (read_json(path) if path.exists() else [])}
    write_json(path, list((kept | {one["name"]: one for one in rows}).values()))
    extra = [key for key in rows[0] if key not in row("", 1, 1, "", "", "")]
    table = Table("name", "ours", "peer", "ratio", "unit", "peer", *extra, title=str(path))
    for one in rows:
        shown = [f"{one[key]:.3g}" if isinstance(one[key], float) else str(one[key]) for key in extra]
        table.add_row(
            one["name"], f"{one['ours']:.4g}", f"{one['peer']:.4g}", f"{one['ratio']:.2f}", one["unit"],
            f"{one['peer_name']} {one['peer_version']}", *shown,
        )  # fmt: skip
    Console(width=180).print(table)


def compared(task: str, start: Path, rounds: int, configs: dict[str, dict]) -> None:
    """Run the rounds of each config, {name: config}, from the model in `start`; their figures are printed, and the
    curves drawn into benchmarks/out/{task}.svg."""
    if not start.is_dir():
        raise BadInput(f"{start}: not there; make it with the first command of the description (--help)")
    (OUT / "configs").mkdir(parents=True, exist_ok=True)
    for name, config in configs.items():
        file = OUT / "configs" / f"{name}.yaml"
        whole = config | {"name": f"compared-{name}", "rounds": rounds, "model": {"path": str(start)}}
        file.write_text(yaml.safe_dump(whole))
        command = [sys.executable, "-m", "snakemake", "--profile", "local", f"round{rounds}_checkpoint"]
        subprocess.run([*command, "--configfile", str(file)], check=True)
    runs = [f"runs/compared-{name}" for name in configs]
    command = [sys.executable, "-m", "workflow_scripts.report", "--task", task, "--run", *runs]
    for further in ([], ["--plot", str(OUT / f"{task}.svg")]):
        subprocess.run([*command, *further], check=True)
