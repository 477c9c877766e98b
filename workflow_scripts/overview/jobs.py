"""Ask Snakemake for all jobs of a run, and tell in which state each of them is."""

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json
from workflow_scripts.core.running.status import read_status
from workflow_scripts.overview.progress import Progress, in_states, progress_of
from workflow_scripts.workflow.driver import Driver, read

VARIABLE = "ROUNDHOUSE_SURVEY"  # workflow/survey.py reads it; importing that file would import Snakemake
NOISE = ("Using profile", "Assuming unrestricted", "Config file ", "host:", "Building DAG")

# The states of a job, in the order in which they matter to a reader.
STATES = ("failed", "running", "queued", "interrupted", "stale", "pending", "done")


@dataclass
class Job:
    """One job of a run, as `workflow/survey.py` describes it, and its state."""

    rule: str
    stage: str
    round: int
    outputs: list[str]
    log: str | None
    threads: int
    gpus: int
    needs: list[int]  # the numbers of the jobs that make its inputs
    inputs: list[str]  # of a pending job
    changed: list[str]  # the keys of the config that changed since it was made, and "code"
    pending: bool
    exists: bool  # all outputs are there
    reasons: list[str]
    started: float | None
    measured: bool  # Snakemake notes its seconds; jobs without that take a few
    seconds: float  # what it took when it was last finished; 0 if unknown
    state: str = "pending"
    progress: Progress | None = None
    follows: list[str] = field(default_factory=list)  # the stages whose pending jobs it waits for


@dataclass
class Survey:
    """All jobs of a run, producers before consumers."""

    run: str
    task: str
    rounds: int
    prompts: dict[str, int | None]  # numbers of prompts: train (of a round) and eval; None if unknown
    samples: dict[str, int]  # answers to each prompt by version
    samples_of_sets: dict[str, int]  # answers to each question of an eval set that jobs of its own answer, by set
    epochs: int
    cores: int | None
    jobs_at_once: int | None  # on a cluster
    jobs: list[Job]
    driver: Driver | None = None

    @property
    def is_driven(self) -> bool:
        """True if a Snakemake process works on the run."""
        return bool(self.driver and self.driver.is_working)


def survey(arguments: list[str]) -> Survey:
    """Return the run that `snakemake` with these arguments would make. Raise BadInput with Snakemake's own message."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "survey.json"
        profile = [] if "--profile" in arguments else ["--profile", "local"]
        command = [sys.executable, "-m", "snakemake", *arguments, *profile, "--dry-run", "--quiet", "all"]
        result = subprocess.run(command, env=os.environ | {VARIABLE: str(path)}, capture_output=True, text=True)
        if not path.exists():
            raise BadInput(_message(result.stdout + result.stderr))
        values = read_json(path)

    values["jobs"] = [Job(**job) for job in values["jobs"]]
    run = Survey(**values, driver=read(values["run"]))
    for job in run.jobs:
        _judge(job, run)
    return run


def _message(output: str) -> str:
    """Return the error in what Snakemake printed."""
    lines = [line for line in output.splitlines() if line.strip() and not line.startswith(NOISE)]
    return "Snakemake cannot tell the jobs of this run:\n" + "\n".join(lines[-15:])


def _judge(job: Job, run: Survey) -> None:
    """Set the state of a job, its progress, and the stages that it follows from."""
    if not job.pending:
        job.state = "done"
        return

    job.reasons = [reason.replace(f"{run.run}/", "") for reason in job.reasons]
    producers = [run.jobs[number] for number in job.needs]
    job.follows = list(dict.fromkeys(producer.stage for producer in producers if producer.pending))
    has_log = job.log is not None and Path(job.log).exists()
    status = read_status(job.log) if job.log else None

    if job.started and run.is_driven:
        job.state = "running" if has_log else "queued"
    elif has_log and status not in (None, 0) and not job.exists:
        job.state = "failed"
        job.reasons = [f"exit status {status}, see {job.log}"]
    elif job.started:
        job.state = "interrupted"
    elif job.exists:
        job.state = "stale"

    states = f"{run.run}/state/r{job.round}"
    if job.state in ("running", "interrupted", "failed") and job.log:
        job.progress = progress_of(job.log, states)
    elif job.state == "pending" and any(path.endswith("/checkpoint.json") for path in job.outputs):
        job.progress = in_states(states)
