"""Jobs that an earlier driver left in Slurm's queue: if `snakemake` is killed, its jobs go on without it."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json, write_json


def claim(record: Path, run: str | None) -> None:
    """Enter this driver in `record`, with `run`, the name of all its Slurm jobs (None if it submits none).

    Raise BadInput if jobs of an earlier driver are still in the queue: jobs submitted beside them would do the same
    work again and write the same files.
    """
    if not run and not shutil.which("squeue"):  # a run's folder that was copied from its cluster
        return

    earlier = read_json(record) if record.exists() else {}
    if jobs := queued_jobs(earlier.get("run")):
        listing = "\n".join(f"  {line}" for line in jobs)
        raise BadInput(
            f"jobs of an earlier snakemake ({earlier['driver']}) are still in the queue:\n{listing}\n"
            "If that snakemake is still working, let it finish. If it was killed, end its jobs with\n"
            f"  scancel --name={earlier['run']}\n"
            f"or wait for them (squeue --name={earlier['run']} shows them); then type the same command again"
        )

    if run:
        write_json(record, {"run": run, "driver": f"process {os.getpid()} on {socket.gethostname()}"})


def queued_jobs(run: str | None) -> list[str]:
    """Return "job state comment" for each job of a run that Slurm still has."""
    if not run:
        return []

    command = ["squeue", "--me", "--noheader", f"--name={run}", "--format=%A %T %k"]
    answer = subprocess.run(command, capture_output=True, text=True)

    if answer.returncode:
        raise BadInput(
            f"squeue fails, so it is unknown whether jobs of an earlier snakemake are left: {answer.stderr.strip()}"
        )

    return answer.stdout.splitlines()
