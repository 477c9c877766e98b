"""Jobs that an earlier driver left in Slurm's queue: when `snakemake` is killed, its jobs go on without it."""

import subprocess
from pathlib import Path

from workflow_scripts.core.records import BadInput


def claim(record: Path, run: str) -> None:
    """Enter this driver's run (the name of all its jobs) in `record`; BadInput if jobs of an earlier one are left.

    Submitted beside them, the same work would be done twice, by two writers of the same files.
    """
    earlier = record.read_text().split() if record.exists() else []
    if jobs := queued(earlier):
        names = ",".join(sorted({name for name, _ in jobs}))
        shown = "\n".join(f"  {line}" for _, line in jobs)
        raise BadInput(
            f"jobs of an earlier snakemake, which was killed, are still in the queue:\n{shown}\n"
            f"end them with\n  scancel --name={names}\n"
            f"or await their end (squeue --name={names} shows them); then run the same command again"
        )
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(f"{run}\n")


def queued(runs: list[str]) -> list[tuple[str, str]]:
    """(run, "job state what") of each job that Slurm still has of these runs."""
    if not runs:
        return []
    command = ["squeue", "--me", "--noheader", f"--name={','.join(runs)}", "--format=%j|%A %T %k"]
    asked = subprocess.run(command, capture_output=True, text=True)
    if asked.returncode:
        raise BadInput(f"squeue cannot say whether jobs of an earlier snakemake are left: {asked.stderr.strip()}")
    return [tuple(line.split("|", 1)) for line in asked.stdout.splitlines()]
