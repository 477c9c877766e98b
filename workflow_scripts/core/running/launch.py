"""Start a stage where it should run: on which GPUs, in how many processes, on how many nodes.

    python -m workflow_scripts.core.running.launch --gpus 2 --processes 2 -- workflow_scripts.train --data …

A job sees exactly the GPUs that it asks for, and no other job of the same user sees them meanwhile. Snakemake does not
take care of that on one machine, so each job takes a kernel lock on one file per GPU. The locks live in file
descriptors that the command inherits, so they are gone when it ends in whatever way. A job that waits for a GPU asks
servers that no job uses (residents.py) to leave. The GPUs to share out are those of
this machine, or those that a scheduler, CUDA_VISIBLE_DEVICES or LOCAL_GPUS names. On a machine without GPUs a stage
runs on the CPU. Several processes are started by torchrun. On several nodes of a Slurm job, srun starts one torchrun
per node.
"""

import argparse
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote

from workflow_scripts.core.running import residents
from workflow_scripts.core.running.status import MEND_FIRST_STATUS

MODULE = "workflow_scripts.core.running.launch"


def give_up(message: str) -> NoReturn:
    """End with a message, and with the status that says that no further attempt helps."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.exit(MEND_FIRST_STATUS)


def candidate_gpus() -> list[str] | None:
    """Return the GPUs that jobs share: LOCAL_GPUS ("0,1"), else CUDA_VISIBLE_DEVICES, else all of this machine.

    Return None if a scheduler assigned some without naming them.
    """
    in_slurm = "SLURM_JOB_ID" in os.environ

    for variable in ("CUDA_VISIBLE_DEVICES",) if in_slurm else ("LOCAL_GPUS", "CUDA_VISIBLE_DEVICES"):
        if (value := os.environ.get(variable)) is not None:
            names = [gpu.strip() for gpu in value.split(",")]
            return list(dict.fromkeys(gpu for gpu in names if gpu not in ("", "NoDevFiles")))

    if in_slurm:
        return None

    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()
    except FileNotFoundError:
        return []
    except subprocess.CalledProcessError as error:
        message = (error.stdout + error.stderr).strip() or error
        sys.exit(
            f"error: nvidia-smi fails, so the GPUs of this machine are unknown ({message}); "
            'set LOCAL_GPUS to their numbers, or to "" to use none'
        )


def lock_gpus(count: int, candidates: list[str], folder: Path) -> list[tuple[str, int]]:
    """Wait until `count` GPUs are free and return (GPU, descriptor of its lock) for each."""
    folder.mkdir(parents=True, exist_ok=True)
    has_told = False

    with open(folder / "lock", "w") as everyone:
        while True:
            # Only one job picks at a time, so two jobs never hold half of what both of them need.
            fcntl.flock(everyone, fcntl.LOCK_EX)
            held = []

            for gpu in candidates:
                path = folder / f"gpu-{quote(gpu, safe='')}"
                lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.utime(path)  # cleaners of /tmp go by age
                    held.append((gpu, lock))
                except BlockingIOError:
                    os.close(lock)
                if len(held) == count:
                    return held

            for _, lock in held:
                os.close(lock)
            fcntl.flock(everyone, fcntl.LOCK_UN)

            if not has_told:
                has_told = True
                print(f"waiting for {count} of the GPUs {', '.join(candidates)}", file=sys.stderr, flush=True)
            residents.retire()  # servers that no job uses may hold what is missing
            residents.end_if_unused()
            time.sleep(0.5)


def claim_gpus(count: int) -> None:
    """Set CUDA_VISIBLE_DEVICES to `count` GPUs that this process holds from now on."""
    candidates = candidate_gpus() if count else []

    if candidates == []:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif candidates:
        if count > len(candidates):
            give_up(
                f"the rule asks for {count} GPUs, but there are {len(candidates)}: "
                "lower `gpus` or `processes`, or use a cluster"
            )

        # Where Slurm can hide the GPUs of other jobs, it numbers those of each job from 0, so jobs do not compete.
        owner = f"{os.getuid()}-{os.environ.get('SLURM_JOB_ID', '')}".rstrip("-")
        held = lock_gpus(count, candidates, Path(os.environ.get("GPU_LOCKS", f"/tmp/roundhouse-gpus-{owner}")))
        for _, lock in held:
            os.set_inheritable(lock, True)
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpu for gpu, _ in held)


def visible_gpus(count: int) -> int:
    """Return how many GPUs this process sees. A scheduler that names none gives as many as were asked for, `count`."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return count if named is None else len([gpu for gpu in named.split(",") if gpu])


def rendezvous(nodes: int) -> list[str]:
    """Return the torchrun options by which the processes find each other."""
    if nodes == 1:
        return ["--standalone"]

    command = ["scontrol", "show", "hostnames", os.environ["SLURM_JOB_NODELIST"]]
    hosts = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    port = 20000 + int(os.environ["SLURM_JOB_ID"]) % 20000  # differs between jobs that share a host
    rank = os.environ["SLURM_NODEID"]

    return ["--nnodes", str(nodes), "--node-rank", rank, "--master-addr", hosts[0], "--master-port", str(port)]


def torchrun(nodes: int, processes: int, command: list[str]) -> None:
    """Run the command under torchrun and end with the exit status of the first process that failed."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        run.run(run.parse_args([*rendezvous(nodes), "--nproc-per-node", str(processes), "-m", *command]))
    except ChildFailedError as error:
        status = error.get_first_failure()[1].exitcode
        sys.exit(status if status > 0 else 128 - status)


def start_on_nodes(nodes: int, threads: int) -> None:
    """Replace this process by an srun that runs this command once on each node of the Slurm job."""
    if "SLURM_JOB_ID" not in os.environ:
        give_up(f"`nodes: {nodes}` needs a Slurm job with that many nodes: use --profile slurm")

    steps = ["--nodes", str(nodes), "--ntasks", str(nodes), "--ntasks-per-node", "1"]
    steps += ["--cpus-per-task", str(threads), "--kill-on-bad-exit=1"]
    os.execvp("srun", ["srun", *steps, sys.executable, "-m", MODULE, "--on-node", *sys.argv[1:]])


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gpus", type=int, default=0, help="GPUs of one node that the stage sees (default: 0)")
    parser.add_argument("--processes", type=int, default=1, help="processes on each node (default: 1)")
    parser.add_argument(
        "--process-per-gpu", action="store_true", help="one process for each GPU of this machine that the stage sees"
    )
    parser.add_argument("--nodes", type=int, default=1, help="nodes of this Slurm job (default: 1)")
    parser.add_argument("--threads", type=int, default=1, help="CPUs on each node, for srun (default: 1)")
    parser.add_argument("--on-node", action="store_true", help=argparse.SUPPRESS)  # added by start_on_nodes
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- MODULE …", help="the stage and its arguments")
    args = parser.parse_args()

    args.command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not args.command:
        parser.error("no module to run")

    return args


def main() -> None:
    args = parse_arguments()

    if args.nodes > 1 and not args.on_node:
        start_on_nodes(args.nodes, args.threads)

    if args.nodes == 1:
        claim_gpus(args.gpus)

    processes = visible_gpus(args.gpus) if args.process_per_gpu else args.processes
    if args.nodes * processes > 1:
        torchrun(args.nodes, processes, args.command)
        return

    os.execv(sys.executable, [sys.executable, "-m", *args.command])


if __name__ == "__main__":
    main()
