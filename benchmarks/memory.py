"""Predicted beside measured memory of training and scoring, on one and two processes of a CPU.

    python -m benchmarks.memory                # 24 combinations, about a minute
    python -m benchmarks.memory --few          # the smaller shape only

The prediction is that of `workflow_scripts/training/memory.py`. The profiler adds up what tensors take. The processes
are joined by gloo and divide the model by FSDP2, as on GPUs. The results go to benchmarks/out/memory.json.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.common import OUT
from benchmarks.gpu.fits import full_bins, peak_on_cpu
from benchmarks.gpu.setting import Row, random_model, small_config
from workflow_scripts.config.sections import Train
from workflow_scripts.core.files import read_json, write_json
from workflow_scripts.logp import score
from workflow_scripts.training import logps, processes
from workflow_scripts.training.logps import as_policy, load_scorer
from workflow_scripts.training.memory import MASTER, Shape, scoring_bytes, training_bytes
from workflow_scripts.training.trainer import prepare

BOUND = 0.10  # share of the measured peak
RANKS = (1, 2)
DTYPES = ("float32", "bfloat16")
# name → what differs from a Llama of width 128 with two layers, and the tokens of a bin
SHAPES: dict[str, tuple[dict[str, Any], int]] = {
    "vocabulary": ({"tie_word_embeddings": False, "vocab_size": 4096}, 256),
    "body": (
        {"tie_word_embeddings": True, "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6}, 512
    ),
}  # fmt: skip


def config_of(name: str) -> Any:
    """Return the configuration of a shape."""
    changes = {key: value for key, value in SHAPES[name][0].items() if key != "tie_word_embeddings"}
    return small_config("llama", tied=SHAPES[name][0]["tie_word_embeddings"], **changes)


# ---------------------------------------------------------------- measuring


def made(config: Any, device: str = "cpu") -> Any:
    """Return a policy with random weights, or without any on the meta device."""
    if device == "meta":
        with torch.device("meta"):
            return as_policy(random_model(config, "meta", attn_implementation="segments"), "no weights")
    model = random_model(config, device, attn_implementation="segments")
    model.config.use_cache = False
    return as_policy(model, "random weights")


def train_once(config: Any, rows: list[Row], dtype: str, is_checkpointed: bool, budget: int) -> None:
    """Make two updates of two bins per process: the second has the optimizer's moments from its beginning."""
    settings = Train(
        objective="clip",
        batch_size=len(rows),
        epochs=2,
        tokens_per_bin=budget,
        max_length=100_000,
        dtype=dtype,  # type: ignore[arg-type]
        gradient_checkpointing=is_checkpointed,
        save_steps=10_000,
        threads=1,
    )
    with (
        tempfile.TemporaryDirectory() as state,
        patch("workflow_scripts.training.trainer.load_policy", lambda *_: made(config)),
        patch("workflow_scripts.training.trainer.empty_policy", lambda *_: made(config, "meta")),
    ):
        trainer = prepare("", rows, settings, temperature=1.0, seed=0, state=state, pad=0)
        trainer.args.save_strategy = "no"
        trainer.train()


def score_once(config: Any, rows: list[Row], dtype: str) -> None:
    """Score one bin per process."""
    with (
        patch.object(logps, "load_policy", lambda *_: made(config)),
        patch.object(logps, "empty_policy", lambda *_: made(config, "meta")),
    ):
        score(load_scorer("", dtype), rows, 1.0)


# ---------------------------------------------------------------- the combinations


def measured(names: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the peak of each combination of this many processes: the largest of all ranks, on all ranks."""
    ranks = processes.count()
    if ranks > 1:
        processes.join()

    for name in names:
        config, budget = config_of(name), SHAPES[name][1]
        sizes = (Shape.of(config), budget, budget // 2)
        rows = full_bins(config.vocab_size, budget, 2 * ranks)

        for dtype in DTYPES:
            is_bf16 = dtype == "bfloat16"
            common = {"shape": name, "ranks": ranks, "dtype": dtype}

            for is_checkpointed in (False, True):
                peak = least_peak(lambda: train_once(config, rows, dtype, is_checkpointed, budget))  # noqa: B023
                predicted = training_bytes(
                    *sizes, is_bf16=is_bf16, is_checkpointed=is_checkpointed, ranks=ranks, device="cpu"
                )
                stage = "train, checkpointed" if is_checkpointed else "train"
                yield common | {"stage": stage, "predicted": predicted, "measured": peak}

            peak = least_peak(lambda: score_once(config, rows[:8], dtype))  # noqa: B023
            loaded = MASTER * sizes[0].parameters  # by the first rank, before the weights are rounded and divided
            predicted = max(loaded, scoring_bytes(*sizes, is_bf16=is_bf16, ranks=ranks, device="cpu"))
            yield common | {"stage": "logp", "predicted": predicted, "measured": peak}

    processes.leave()


def least_peak(work: Callable[[], None]) -> float:
    """Return the peak of the rank that took most, the least of three times on several ranks.

    The threads of gloo free what they sent at their own pace, which on a busy machine adds up to a sixth.
    """
    times = 3 if processes.count() > 1 else 1
    return min(largest(peak_on_cpu(work)) for _ in range(times))


def largest(value: float) -> float:
    """Return the largest value of all ranks."""
    if processes.count() == 1:
        return value
    values = torch.tensor([value], dtype=torch.float64)
    torch.distributed.all_reduce(values, torch.distributed.ReduceOp.MAX)
    return values.item()


def measure(names: list[str]) -> list[dict[str, Any]]:
    """Return predicted and measured bytes of all combinations. Each number of ranks has processes of its own."""
    results: list[dict[str, Any]] = []

    for ranks in RANKS:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "results.json"
            torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), "-m"]
            launcher = torchrun if ranks > 1 else []
            command = [sys.executable, "-m", *launcher, "benchmarks.memory", "--worker", str(path), "--shapes", *names]
            subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
            results += read_json(path)

    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--few", action="store_true", help="the smaller shape only")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), help=argparse.SUPPRESS)
    args = parser.parse_args()

    if args.worker:
        torch.set_num_threads(1)
        results = list(measured(args.shapes))
        if processes.rank() == 0:
            write_json(args.worker, results)
        return

    results = measure(["vocabulary"] if args.few else args.shapes)
    write_json(OUT / "memory.json", results)
    show(results)
    sys.exit(int(any(error_of(result) > BOUND for result in results)))


def error_of(result: dict[str, Any]) -> float:
    """Return |predicted - measured| / measured."""
    return abs(result["predicted"] - result["measured"]) / result["measured"]


def show(results: list[dict[str, Any]]) -> None:
    """Print the results as a table."""
    table = Table("shape", "stage", "ranks", "dtype", "predicted MB", "measured MB", "error")
    for result in results:
        error = result["predicted"] / result["measured"] - 1
        sizes = [f"{result[name] / 1e6:.2f}" for name in ("predicted", "measured")]
        table.add_row(result["shape"], result["stage"], str(result["ranks"]), result["dtype"], *sizes, f"{error:+.1%}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
