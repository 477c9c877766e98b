"""Where a stage runs: on which GPUs, in how many processes, on how many nodes. The stage itself does not know.

    python -m workflow_scripts.core.launch --gpus 2 --processes 2 -- workflow_scripts.train --data …

A job sees as many GPUs as it asks for, of this machine or of those that a scheduler or CUDA_VISIBLE_DEVICES names, and
no other job of this user sees them meanwhile: Snakemake leaves that open. Each job takes kernel locks on one file per
GPU; they live in the file descriptors that the command inherits, so they are gone when it dies, in whatever way. On a
machine without GPUs a stage runs on the CPU. Several processes are started by torchrun; on several nodes srun
starts one torchrun each, within a Slurm job of as many nodes.
"""

import argparse
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote


def gpus() -> list[str] | None:
    """The GPUs that jobs share out: LOCAL_GPUS="0,1", or CUDA_VISIBLE_DEVICES, or all of this machine.

    None where a scheduler gave some without saying which.
    """
    in_slurm = "SLURM_JOB_ID" in os.environ
    for name in ("CUDA_VISIBLE_DEVICES",) if in_slurm else ("LOCAL_GPUS", "CUDA_VISIBLE_DEVICES"):
        if (given := os.environ.get(name)) is not None:
            return list(dict.fromkeys(gpu.strip() for gpu in given.split(",") if gpu.strip() not in ("", "NoDevFiles")))
    if in_slurm:
        return None
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()
    except FileNotFoundError:
        return []
    except subprocess.CalledProcessError as error:
        said = (error.stdout + error.stderr).strip() or error
        sys.exit(f'error: nvidia-smi fails, so nobody knows which GPUs there are ({said}); LOCAL_GPUS="" takes none')


def take(count: int, candidates: list[str], folder: Path) -> list[tuple[str, int]]:
    """(GPU, the descriptor of its lock) `count` times; waits until so many are free."""
    folder.mkdir(parents=True, exist_ok=True)
    told = False
    with open(folder / "lock", "w") as everyone:
        while True:
            fcntl.flock(everyone, fcntl.LOCK_EX)  # one picks at a time: two never hold half of what both need
            held = []
            for gpu in candidates:
                path = folder / f"gpu-{quote(gpu, safe='')}"
                lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.utime(path)  # what cleans /tmp goes by age
                    held.append((gpu, lock))
                except BlockingIOError:
                    os.close(lock)
                if len(held) == count:
                    return held
            for _, lock in held:
                os.close(lock)
            fcntl.flock(everyone, fcntl.LOCK_UN)
            if not told:
                told = True
                print(f"waiting for {count} of the GPUs {', '.join(candidates)}", file=sys.stderr, flush=True)
            time.sleep(0.5)


def see(count: int) -> None:
    """Set CUDA_VISIBLE_DEVICES to `count` GPUs that this process holds from now on."""
    candidates = gpus() if count else []
    if candidates == []:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif candidates:
        if count > len(candidates):
            found = f"there are {len(candidates)}"
            sys.exit(f"error: the rule asks for {count} GPUs, {found}: lower `gpus` or `processes`, or use a cluster")
        # Slurm numbers each job's GPUs from 0 where it can hide the others: its jobs are no rivals
        of_whom = f"{os.getuid()}-{os.environ.get('SLURM_JOB_ID', '')}".rstrip("-")
        held = take(count, candidates, Path(os.environ.get("GPU_LOCKS", f"/tmp/roundhouse-gpus-{of_whom}")))
        for _, lock in held:
            os.set_inheritable(lock, True)
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpu for gpu, _ in held)


def rendezvous(nodes: int) -> list[str]:
    """Where the processes find each other: on one node by themselves, on several at the job's first host."""
    if nodes == 1:
        return ["--standalone"]
    listed = ["scontrol", "show", "hostnames", os.environ["SLURM_JOB_NODELIST"]]
    first = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()[0]
    port = 20000 + int(os.environ["SLURM_JOB_ID"]) % 20000  # of its own for each job that shares a host
    rank = os.environ["SLURM_NODEID"]
    return ["--nnodes", str(nodes), "--node-rank", rank, "--master-addr", first, "--master-port", str(port)]


def torchrun(nodes: int, processes: int, command: list[str]) -> None:
    """The same as torchrun, ending with the exit status of the process that ended badly."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        run.run(run.parse_args([*rendezvous(nodes), "--nproc-per-node", str(processes), "-m", *command]))
    except ChildFailedError as error:
        status = error.get_first_failure()[1].exitcode
        sys.exit(status if status > 0 else 128 - status)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m workflow_scripts.core.launch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--gpus", type=int, default=0, help="of one node, that the stage may see (default: 0)")
    parser.add_argument("--processes", type=int, default=1, help="on each node (default: 1)")
    parser.add_argument("--nodes", type=int, default=1, help="of this Slurm job (default: 1)")
    parser.add_argument("--threads", type=int, default=1, help="CPUs on each node, for srun (default: 1)")
    parser.add_argument("--python", default=sys.executable, help="that runs the stage (default: %(default)s)")
    parser.add_argument("--on-node", action="store_true", help=argparse.SUPPRESS)  # said by srun's own command
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- MODULE …", help="the stage and its arguments")
    args = parser.parse_args()
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        parser.error("no module to run")
    if args.nodes > 1 and not args.on_node:
        if "SLURM_JOB_ID" not in os.environ:
            sys.exit(f"error: `nodes: {args.nodes}` needs a Slurm job of as many nodes: use --profile slurm")
        steps = ["--nodes", str(args.nodes), "--ntasks", str(args.nodes), "--ntasks-per-node", "1"]
        steps += ["--cpus-per-task", str(args.threads), "--kill-on-bad-exit=1"]
        again = [sys.executable, "-m", "workflow_scripts.core.launch", "--on-node", *sys.argv[1:]]
        os.execvp("srun", ["srun", *steps, *again])
    if args.nodes == 1:
        see(args.gpus)
    if args.nodes * args.processes > 1:
        torchrun(args.nodes, args.processes, command)
    else:
        try:
            os.execvp(args.python, [args.python, "-m", *command])
        except OSError as error:
            sys.exit(f"error: cannot run {args.python}: {error.strerror}")


if __name__ == "__main__":
    main()
