"""Jobs that an earlier driver left in Slurm's queue: when `snakemake` is killed, its jobs go on without it."""

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

from workflow_scripts.core.records import BadInput, write_json


def claim(record: Path, run: str | None) -> None:
    """Enter this driver and its run (the name of all its Slurm jobs, if it has such) in `record`.

    BadInput if jobs of an earlier driver are left: submitted beside them, the same work would be done twice, by two
    writers of the same files.
    """
    if not run and not shutil.which("squeue"):  # a run's folder that was brought from its cluster
        return
    earlier = json.loads(record.read_text()) if record.exists() else {}
    if jobs := queued(earlier.get("run")):
        shown = "\n".join(f"  {line}" for line in jobs)
        raise BadInput(
            f"jobs of an earlier snakemake ({earlier['driver']}) are still in the queue:\n{shown}\n"
            "If it is still working, let it. If it was killed, end them with\n"
            f"  scancel --name={earlier['run']}\n"
            f"or await their end (squeue --name={earlier['run']} shows them); then run the same command again"
        )
    if run:
        write_json(record, {"run": run, "driver": f"process {os.getpid()} on {socket.gethostname()}"})


def queued(run: str | None) -> list[str]:
    """ "job state what" of each job that Slurm still has of a run."""
    if not run:
        return []
    command = ["squeue", "--me", "--noheader", f"--name={run}", "--format=%A %T %k"]
    asked = subprocess.run(command, capture_output=True, text=True)
    if asked.returncode:
        raise BadInput(f"squeue cannot say whether jobs of an earlier snakemake are left: {asked.stderr.strip()}")
    return asked.stdout.splitlines()
