"""Prove or correct, on one GPU, everything that is claimed for one. Each part runs in a process of its own.

    make bench-gpu                             # the first GPU, 25 minutes
    make bench-gpu DEVICE=cpu SHAPE=tiny       # every part in a short form on a CPU, in less than 3 minutes
    python -m benchmarks.gpu --only right fast --minutes 10

The parts, most valuable first:
    right       log-probs and gradients against transformers' own, one row at a time; ratios; stop and resume
    fast        tokens/s, share of the peak (MFU), memory, and where the time goes, of scoring and training
    trl         SFT and DPO beside TRL, where it is installed
    fits        predicted beside measured memory; the largest model that trains, and that scores
    generates   answers/s and slots in use of the transformers engine, and of vLLM where it is installed
    round       a cold start and a round of the default experiment, on the device and on the CPU

Results are in the output folder while the run goes on: results.jsonl (a line per result) and summary.md. A run that is
cut off keeps what it has. A part that raises is recorded with its traceback, and the next part goes on. The exit status
is 1 if a check failed or a part did not end well. docs/guides/gpu.md explains how to read the summary.
"""

import argparse
import importlib
import importlib.util
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.gpu.results import HEADER, Results, by_part, forget, read_lines, status_of
from workflow_scripts.core.running.replicas import die_with_parent

REPOSITORY = Path(__file__).parents[2]
# Minutes of each part, out of 25. What a part leaves over goes to the parts after it.
SHARES = {"right": 4.0, "fast": 6.0, "trl": 4.0, "fits": 4.0, "generates": 3.0, "round": 4.0}
NEEDED = {"trl": ("trl", "datasets")}  # packages without which a part is left out
PACKAGES = ("torch", "transformers", "accelerate", "vllm", "trl", "deepspeed")
GRACE = 20  # seconds between a part's end as planned and its end by force


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="where to measure (default: cuda)")
    parser.add_argument(
        "--shape",
        choices=("full", "tiny"),
        default="full",
        help="full: the shapes of Qwen2.5-1.5B and Llama-3.1-8B; tiny: all parts in seconds (default: full)",
    )
    parser.add_argument("--minutes", type=float, default=25.0, help="time for all parts (default: 25)")
    parser.add_argument("--only", nargs="+", choices=list(SHARES), metavar="PART", help="these parts only")
    parser.add_argument("--output", type=Path, help="folder (default: benchmarks/out/gpu-DEVICE-SHAPE)")
    parser.add_argument("--started", type=float, default=time.time(), help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)  # given to the process of one part
    args = parser.parse_args()
    args.output = (args.output or REPOSITORY / f"benchmarks/out/gpu-{args.device}-{args.shape}").absolute()
    return args


# ---------------------------------------------------------------- the run


def plan(parts: list[str], minutes: float, started: float) -> dict[str, float]:
    """Return the Unix time until which each part may run. The minutes are divided by the parts' shares."""
    whole = sum(SHARES[part] for part in parts)
    until = {}
    used = 0.0

    for part in parts:
        used += SHARES[part]
        until[part] = started + 60 * minutes * used / whole

    return until


def run_all(args: argparse.Namespace) -> int:
    """Run the parts one after another; return the exit status."""
    parts = args.only or list(SHARES)
    if args.only:
        forget(args.output, [*parts, HEADER])
    else:
        shutil.rmtree(args.output, ignore_errors=True)

    facts = {"command": f"--device {args.device} --shape {args.shape} --minutes {args.minutes:g}", "commit": commit()}
    facts |= {package: installed(package) for package in PACKAGES} | {"python": platform.python_version()}
    facts |= {"machine": machine(args.device)}
    Results(args.output, HEADER, args.started).add("header", " ".join(map(str, facts.values())), facts=facts)

    for part, until in plan(parts, args.minutes, args.started).items():
        results = Results(args.output, part, args.started)
        missing = [package for package in NEEDED.get(part, ()) if importlib.util.find_spec(package) is None]
        if missing:
            results.end("left out", 0, reason=f"{missing[0]} is not installed")
        elif time.time() > until:
            results.end("left out", 0, reason="no time is left")
        else:
            run_apart(args, part, until, results)

    statuses = {part: status_of(lines) for part, lines in by_part(read_lines(args.output)).items()}
    print(f"\n{args.output}/summary.md: " + ", ".join(f"{part} {status}" for part, status in statuses.items()))
    return int(any(status not in ("ok", "left out") for status in statuses.values()))


def run_apart(args: argparse.Namespace, part: str, until: float, results: Results) -> None:
    """Run a part in a process of its own, so that a fault of the device or a lack of memory ends this part only."""
    began = time.time()
    options = ["--device", args.device, "--shape", args.shape, "--only", part, "--output", str(args.output)]
    options += ["--started", str(args.started), "--until", str(until)]
    command = [sys.executable, "-m", "benchmarks.gpu", *options]

    with tempfile.TemporaryDirectory(prefix=f"bench-gpu-{part}-") as scratch:
        environment = os.environ | {"TMPDIR": scratch}
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, start_new_session=True, preexec_fn=die_with_parent
        )
        try:
            status = process.wait(timeout=max(1, until - began) + GRACE)
        except subprocess.TimeoutExpired:
            results.end("cut off", time.time() - began, reason="its time was up")
            return
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    lines = [line for line in read_lines(args.output) if line["part"] == part]
    if not lines or lines[-1]["kind"] != "end":
        results.end("failed", time.time() - began, error=f"the process ended with status {status}")


def commit() -> str:
    """Return the commit of the code, marked if files were changed since."""
    command = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def installed(package: str) -> str:
    """Return the version of a package, or "none"."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def machine(device: str) -> str:
    """Return the name of the device, without importing torch in this process."""
    if device == "cpu":
        return f"{os.cpu_count()} CPUs, {platform.machine()}"

    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=60).stdout.strip() or "unknown"
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"


# ---------------------------------------------------------------- one part


def run_part(args: argparse.Namespace) -> None:
    """Run one part in this process and record how it ended."""
    part = args.only[0]
    results = Results(args.output, part, args.started)
    began = time.time()
    results.note("start", f"may run for {args.until - began:.0f} s")

    try:
        measure(args, part, results)
        results.end("ok", time.time() - began)
    except Exception:
        results.end("failed", time.time() - began, error=traceback.format_exc())


def measure(args: argparse.Namespace, part: str, results: Results) -> None:
    """Import a part and run it in a scratch folder."""
    # Before torch is imported. With several GPUs in sight, stages would start replicas of themselves.
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    os.environ["CUDA_VISIBLE_DEVICES"] = first if args.device == "cuda" else ""

    import torch

    from benchmarks.gpu.setting import Bench

    if args.device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("torch finds no GPU: use --device cpu --shape tiny, or look at nvidia-smi")

    module: Any = importlib.import_module(f"benchmarks.gpu.{part}")
    with tempfile.TemporaryDirectory() as scratch:
        module.measure(Bench(args.device, args.shape, Path(scratch), results, args.until))


def main() -> int:
    args = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the part's process ends too
    if args.until is None:
        return run_all(args)
    run_part(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
