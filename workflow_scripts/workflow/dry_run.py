"""Add to a dry run's output: reasons in words, short lists of files, why stages are pending, and what jobs ask for."""

import atexit
import logging
import os
import re
import sys
from collections import Counter, defaultdict
from typing import Any

from snakemake.logging import logger
from tabulate import tabulate

from workflow_scripts.config.layout import Run
from workflow_scripts.config.load import Config
from workflow_scripts.workflow import changes, survey
from workflow_scripts.workflow.brake import ACCEPT_VARIABLE, Brake
from workflow_scripts.workflow.preflight import Preflight

PARAMS = re.compile("Params have changed since last execution: ")
MOST = 6  # files of a list that are shown
LEGEND = (
    "\nThese are requests to a scheduler, not estimates of what the jobs use. A machine without a GPU uses its CPU."
    '\n"?": the request follows from files that earlier jobs make.'
)
LISTS = re.compile(r"((?:Missing output|Incomplete output|Updated input|Input) files[^:;]*: )([^;]+)")


class PlainReasons(logging.Filter):
    """Changes what Snakemake says of a job: changed settings by their keys, and short lists of files.

    All files of a round can be hundreds, and Snakemake shows changed settings as two long texts.
    """

    def __init__(self, workflow: Any, task: str, brake: Brake):
        super().__init__()
        self.workflow = workflow
        self.task = task
        self.brake = brake

    def filter(self, record: logging.LogRecord) -> bool:
        values = record.__dict__

        if isinstance(values.get("reason"), str):
            reason = self._with_plain_settings(values["reason"], values)
            values["reason"] = LISTS.sub(lambda match: match[1] + shortened(match[2].split(", ")), reason)
        for name in ("input", "output"):
            if isinstance(values.get(name), list) and len(values[name]) > MOST:
                values[name] = [shortened(values[name])]

        return True

    def _with_plain_settings(self, text: str, values: dict[str, Any]) -> str:
        """Return a reason with changed settings as "train.lr: 1e-6 → 2e-6"."""
        match = PARAMS.search(text)
        if not match or "jobid" not in values:
            return text

        dag = self.workflow.dag
        job = next(job for job in dag.jobs if dag.jobid(job) == values["jobid"])
        change = dag.reason(job).params_changed
        texts = changes.of_parameters(job.rule.name, self.task, change, self.brake.news)
        return text.replace(f"{match[0]}{change}", "; ".join(texts))


def shortened(files: list[str]) -> str:
    """Return a list in words, with a number in place of most of a long one."""
    if len(files) <= MOST:
        return ", ".join(files)
    return ", ".join(files[: MOST - 2]) + f" and {len(files) - MOST + 2} more files"


def watch(workflow: Any, cfg: Config, run: Run, brake: Brake, preflight: Preflight) -> None:
    """Arrange what a dry run ends with: the tables, what is missing, and what changed code would make again.

    If it is asked for a description of the run (`survey.py`), it writes that and prints nothing.
    """
    logger.addFilter(PlainReasons(workflow, cfg.task, brake))
    if survey.is_wanted():
        survey.watch_dry_run(workflow, cfg, run, brake)
        return

    brake.watch_dry_run(workflow)
    preflight.watch_dry_run(workflow)
    _print_tables(workflow, cfg.task, brake)


def _print_tables(workflow: Any, task: str, brake: Brake) -> None:
    """Arrange that a dry run ends with two tables: why jobs are pending, and what they ask for."""

    def at_end() -> None:
        is_dry = workflow.dryrun and getattr(workflow, "_dag", None) is not None
        if is_dry and not os.environ.get(ACCEPT_VARIABLE):
            pending = set(workflow.dag.needrun_jobs(exclude_finished=False))
            in_order = (job for level in workflow.dag.toposorted() for job in level)
            jobs = [job for job in in_order if job in pending and job.rule.shellcmd]
            if jobs:
                print(f"\n{why(jobs, workflow, task, brake)}\n\n{table(jobs)}", file=sys.stderr, flush=True)

    atexit.register(at_end)


def why(jobs: list[Any], workflow: Any, task: str, brake: Brake) -> str:
    """Return why the jobs of each rule are pending, as a table with a line for each reason."""
    pending = set(jobs)
    counts: Counter[tuple[str, str]] = Counter()

    for job in jobs:
        reason = workflow.dag.reason(job)
        change = workflow.persistence.params_changed(job)
        texts = changes.reasons(job, reason, change, task, brake.news)
        if not texts:
            producers = [producer for producer in workflow.dag.dependencies[job] if producer in pending]
            texts = [f"follows from {', '.join(sorted({producer.rule.name for producer in producers}))}"]
        counts[job.rule.name, "; ".join(texts)] += 1

    rows = [[rule, count, text] for (rule, text), count in counts.items()]
    return "The reasons of the pending jobs:\n" + tabulate(rows, ["rule", "jobs", "why"], disable_numparse=True)


def table(jobs: list[Any]) -> str:
    """Return what the jobs of each rule ask for; a job of unknown size, whose inputs are not there yet, has a "?"."""
    by_rule = defaultdict(list)
    for job in jobs:
        by_rule[job.rule.name].append(job)

    rows = []
    total_gpu_hours = 0.0
    for rule, members in by_rule.items():
        gpus = [_gpus(job) for job in members]
        memory = [_number(job, "mem_mb") for job in members]
        minutes = [_number(job, "runtime") for job in members]
        gpu_hours = sum(count * (time or 0) / 60 for count, time in zip(gpus, minutes))
        total_gpu_hours += gpu_hours
        size = [_most(memory, 1000), _most(minutes, 60)]
        rows.append([rule, len(members), max(gpus) or "", *size, f"{gpu_hours:.1f}" if gpu_hours else ""])

    rows.append(["together", len(jobs), "", "", "", f"{total_gpu_hours:.1f}"])
    headers = ["rule", "jobs", "GPUs each", "GB each", "hours each", "GPU-hours at most"]
    return "The pending jobs ask for:\n" + tabulate(rows, headers, disable_numparse=True) + LEGEND


def _number(job: Any, name: str) -> float | None:
    value = job.resources.get(name)
    return value if isinstance(value, int | float) else None


def _gpus(job: Any) -> int:
    """Return the GPUs of a job on all its nodes. On several nodes they are asked for by an option of srun."""
    per_node = re.search(r"--gpus-per-node=(\d+)", str(job.resources.get("slurm_extra", "")))
    if per_node:
        return int(per_node[1]) * int(job.resources.get("nodes", 1))
    return int(_number(job, "gpu") or 0)


def _most(values: list[float | None], unit: float) -> str:
    """Return the largest of the known values in another unit, as text, or "?" if none is known."""
    known = [value for value in values if value is not None]
    return f"{max(known) / unit:.1f}" if known else "?"
