"""The memory that training takes at a vocabulary of 152k, beside TRL's.

python -m benchmarks.training_memory      # `python -m benchmarks.training` runs it too
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

import torch

from benchmarks.common import Clock, publish, row
from benchmarks.training import BATCH, SHAPES, TRL, UPDATES, make_rows, ours, trl


def peak_memory(kind: str) -> tuple[float, float]:
    """Return bytes of a training in a process of its own.

    The first number is what a step needs beyond what is there between steps (weights and the optimizer's moments), the
    second is the whole at its peak, beyond the libraries.
    """
    command = [sys.executable, "-m", "benchmarks.training_memory", "--measure", kind]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    step, whole = map(float, done.stdout.split()[-2:])
    return step, whole


def status(field: str) -> int:
    """Return a field of /proc/self/status in bytes: VmRSS, or VmHWM, its highest value."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


class Memory(Clock):
    """Forgets the highest value at the beginning of the second step, when the moments are there."""

    def on_step_begin(self, args, state, control, **_):
        super().on_step_begin(args, state, control)
        if state.global_step == 1:
            Path("/proc/self/clear_refs").write_text("5")
            self.between = status("VmRSS")


MAKE = (
    "import sys, pathlib; from benchmarks.training import make_model; make_model(pathlib.Path(sys.argv[1]), 'memory')"
)


def measure_memory(kind: str) -> None:
    """Train in this process and print both numbers."""
    libraries = status("VmRSS")
    memory = Memory()

    with tempfile.TemporaryDirectory() as folder, patch("benchmarks.training.Clock", lambda: memory):
        subprocess.run([sys.executable, "-c", MAKE, folder], check=True)  # elsewhere, because it needs memory too
        rows = make_rows(BATCH * UPDATES, SHAPES["memory"]["vocab_size"])
        if kind == "ours":
            ours(folder, rows, objective="sft")
        else:
            trl("SFT", folder, rows)
        print(status("VmHWM") - memory.between, status("VmHWM") - libraries)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", choices=["ours", "trl"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)

    if args.measure:
        measure_memory(args.measure)
        return

    names = ("memory_vs_trl_152k", "memory_whole_process_vs_trl_152k")
    pairs = zip(names, peak_memory("ours"), peak_memory("trl"))
    publish("training", [row(name, a, b, "bytes", "TRL SFTTrainer", TRL) for name, a, b in pairs])


if __name__ == "__main__":
    main()
