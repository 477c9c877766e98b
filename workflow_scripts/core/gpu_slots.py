"""python -m workflow_scripts.core.gpu_slots N -- COMMAND…: run a command with N GPUs of this machine to itself.

Snakemake's local jobs all see all GPUs. Here each takes kernel locks on one file per GPU; they live in the file
descriptors that the command inherits, so they are gone with its last process, however it dies. Where a scheduler
has given out devices already (Slurm, or CUDA_VISIBLE_DEVICES is set), the command is run as it is.
"""

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path


def gpus() -> list[str]:
    """The GPUs of this machine; LOCAL_GPUS="0,1" takes their place."""
    if (given := os.environ.get("LOCAL_GPUS")) is not None:
        return [gpu for gpu in given.split(",") if gpu]
    try:
        query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()
    except (FileNotFoundError, subprocess.CalledProcessError):
        return []


def take(count: int, candidates: list[str], folder: Path) -> list[tuple[str, int]]:
    """(GPU, the descriptor of its lock) `count` times; waits until so many are free."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "all", "w") as everyone:
        while True:
            fcntl.flock(everyone, fcntl.LOCK_EX)  # one picks at a time: two never hold half of what both need
            held = []
            for gpu in candidates:
                lock = os.open(folder / gpu, os.O_RDWR | os.O_CREAT, 0o600)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    held.append((gpu, lock))
                except BlockingIOError:
                    os.close(lock)
                if len(held) == count:
                    return held
            for _, lock in held:
                os.close(lock)
            fcntl.flock(everyone, fcntl.LOCK_UN)
            time.sleep(0.5)


def main() -> None:
    if len(sys.argv) < 4 or sys.argv[2] != "--" or not sys.argv[1].isdigit():
        sys.exit(__doc__)
    count, command = int(sys.argv[1]), sys.argv[3:]
    if count and not {"SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES"} & set(os.environ):
        candidates = gpus()
        if count > len(candidates):
            found = f"this machine has {len(candidates)}"
            sys.exit(f"error: the rule asks for {count} GPUs, {found}: lower `gpus` or use --profile slurm")
        held = take(count, candidates, Path(os.environ.get("GPU_LOCKS", f"/tmp/roundhouse-gpus-{os.getuid()}")))
        for _, lock in held:
            os.set_inheritable(lock, True)
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpu for gpu, _ in held)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
