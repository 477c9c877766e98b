"""The code brake: finished results that only changed code would make again are not made again without consent.

Before the first job starts, the jobs that Snakemake would run are compared with the parameters that their outputs were
made with. If finished outputs differ in the code parameter only, the run stops with a summary of what would be made
again and what that costs. A dry run prints the same summary. There are two ways on: accept the results as they are
(`workflow_scripts.accept_code`), or make them again (`--config code_changes=remake`).
"""

import atexit
import csv
import os
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snakemake.exceptions import WorkflowError

from workflow_scripts.config.layout import Run
from workflow_scripts.config.load import Config
from workflow_scripts.core.files import read_json, write_json
from workflow_scripts.core.running import consent
from workflow_scripts.core.running.code import Table
from workflow_scripts.workflow.changes import code_digests

ACCEPT_VARIABLE = "ROUNDHOUSE_ACCEPT_CODE"  # set by workflow_scripts.accept_code for its dry run


@dataclass
class Affected:
    """The finished jobs that changed code would make again."""

    roots: list[Any] = field(default_factory=list)  # finished jobs whose own code changed, and nothing else
    followers: list[Any] = field(default_factory=list)  # finished jobs that would run because of the roots only

    def __bool__(self) -> bool:
        return bool(self.roots)


class Brake:
    """Finds out, tells and remembers which finished results changed code would make again."""

    def __init__(self, cfg: Config, run: Run, tables: dict[str, Table]):
        """`tables` holds the definitions behind each current code digest; rules add theirs while they are read."""
        self.cfg = cfg
        self.folder = Path(run.folder)
        self.tables = tables

    # ------------------------------------------------------------ the three occasions

    def before_start(self, workflow: Any) -> None:
        """Stop a run that would make finished results again only because code changed; else note the present code."""
        if self.cfg.code_changes == "stop":
            if affected := self.find(workflow):
                raise WorkflowError(self.describe(affected, workflow) + WAYS_ON)

        for job in workflow.dag.needrun_jobs():
            for digest in self._code_of(job):
                self._remember(digest)

    def watch_dry_run(self, workflow: Any) -> None:
        """Arrange that a dry run ends with the summary, or that it accepts the results if it is meant to."""

        def at_end() -> None:
            if not workflow.dryrun or getattr(workflow, "_dag", None) is None:
                return
            affected = self.find(workflow)
            if not affected:
                return
            if os.environ.get(ACCEPT_VARIABLE):
                self.accept(affected, workflow)
            elif self.cfg.code_changes == "stop":
                print(f"\n{self.describe(affected, workflow)}{WAYS_ON}", file=sys.stderr, flush=True)

        atexit.register(at_end)

    def accept(self, affected: Affected, workflow: Any) -> None:
        """Record that the results count as made by the present code."""
        acceptances: dict[str, consent.Acceptance] = {}

        for job in [*affected.roots, *affected.followers]:
            change = workflow.persistence.params_changed(job)
            before, now = code_digests(change.only_old), code_digests(change.only_new)
            if before and now and _is_code_only(change):
                acceptances[_name(job)] = {
                    "counts_as": before[0],
                    "accepted_for": now[0],
                    "outputs": [str(path) for path in job.output],
                    "changed": self.changed(before[0], now[0]),
                }
                self._remember(now[0])

        consent.accept(self.folder, acceptances)
        print(f"accepted: {len(acceptances)} jobs count as made by the present code", file=sys.stderr, flush=True)

    # ------------------------------------------------------------ finding

    def find(self, workflow: Any) -> Affected:
        """Return the finished jobs that would run only because of changed code."""
        dag = workflow.dag
        pending = [job for job in dag.jobs if will_run(dag.reason(job))]
        running = set(pending)
        affected = Affected()
        followers = set()
        others = set()  # jobs that run for reasons of their own, or because of such jobs

        for job in in_order(dag, pending):
            change = workflow.persistence.params_changed(job)
            producers = [producer for producer in dag.dependencies[job] if producer in running]
            is_finished = bool(job.output) and all(os.path.exists(path) for path in job.output)
            has_own_reason = not is_finished or _has_other_reason(dag.reason(job), change)

            if has_own_reason or any(producer in others for producer in producers):
                others.add(job)
            elif _is_code_only(change):
                affected.roots.append(job)
                followers.add(job)
            elif any(producer in followers for producer in producers):
                affected.followers.append(job)
                followers.add(job)

        return affected

    def changed(self, before: str, now: str) -> list[str]:
        """Return the definitions that differ between two digests of code, as "file: name"; those of `core/` last."""
        path = self.folder / "code" / f"{before}.json"
        if not path.exists():
            return []

        old: Table = read_json(path)
        new = self.tables[now]
        differing = []
        for file in sorted(old.keys() | new.keys()):
            before_file, now_file = old.get(file, {}), new.get(file, {})
            for name in sorted(before_file.keys() | now_file.keys()):
                if before_file.get(name) != now_file.get(name):
                    differing.append(f"{file}: {name}")

        return sorted(differing, key=_is_general)

    def news(self, before: str, now: str) -> list[str]:
        """Return what changed since results of the code `before` were made, or were accepted for later code."""
        acceptances = consent.read_accepted(self.folder).values()
        accepted_for = {entry["counts_as"]: entry["accepted_for"] for entry in acceptances}
        return self.changed(accepted_for.get(before, before), now)

    # ------------------------------------------------------------ telling

    def describe(self, affected: Affected, workflow: Any) -> str:
        """Return the summary: which stages, why, and what making them again costs."""
        lines = ["Code changed since these finished results were made, and nothing else did:"]

        for rule, reasons in self._reasons(affected, workflow).items():
            shown = ", ".join(reasons[:4]) + (f" and {len(reasons) - 4} more" if len(reasons) > 4 else "")
            lines.append(f"  {rule}: {shown or 'its code'}")

        lines.append("Making them again, with what follows from them:")
        total_seconds = total_gpu_hours = 0.0
        for rule, jobs in _by_rule([*affected.roots, *affected.followers]).items():
            seconds = sum(map(seconds_of, jobs))
            gpu_hours = sum(seconds_of(job) * _gpus(job) for job in jobs) / 3600
            total_seconds += seconds
            total_gpu_hours += gpu_hours
            lines.append(f"  {rule:<20} {len(jobs):>5} jobs {seconds:>9.0f} s {gpu_hours:>8.2f} GPU-hours")
        lines.append(f"  {'together':<20} {'':>10} {total_seconds:>9.0f} s {total_gpu_hours:>8.2f} GPU-hours")

        return "\n".join(lines)

    def _reasons(self, affected: Affected, workflow: Any) -> dict[str, list[str]]:
        """Return the changed definitions by rule."""
        reasons: dict[str, set[str]] = defaultdict(set)

        for job in affected.roots:
            change = workflow.persistence.params_changed(job)
            before, now = code_digests(change.only_old), code_digests(change.only_new)
            reasons[job.rule.name] |= set(self.news(before[0], now[0])) if before and now else set()

        return {rule: sorted(sorted(names), key=_is_general) for rule, names in reasons.items()}

    # ------------------------------------------------------------ memory

    def _code_of(self, job: Any) -> list[str]:
        return code_digests(map(str, job.params))

    def _remember(self, digest: str) -> None:
        """Write down the definitions behind a digest, so that a later change can be named."""
        path = self.folder / "code" / f"{digest}.json"
        if digest in self.tables and not path.exists():
            write_json(path, self.tables[digest])


WAYS_ON = """
To keep these results, and count them as made by the present code, type
  python -m workflow_scripts.accept_code TARGET …     (with the target and options of your snakemake command)
To make them again, add to your snakemake command
  --config code_changes=remake"""


def _is_general(definition: str) -> bool:
    """Return whether a definition stands in a general file, whose changes say less than those of the stage's own."""
    return definition.startswith("workflow_scripts/core/")


def _is_code_only(change: Any) -> bool:
    """Return whether parameters changed, and the code parameter was the only one."""
    if not change:
        return False
    return all(code_digests([param]) for param in (*change.only_old, *change.only_new))


def will_run(reason: Any) -> bool:
    """Return whether a job runs. Snakemake's own flag does not tell, since a dry run counts all jobs as finished."""
    return bool(
        reason.forced
        or reason.noio
        or reason.nooutput
        or reason.missing_output
        or reason.incomplete_output
        or reason.updated_input
        or reason.updated_input_run
        or reason.params_changed
        or reason.input_changed
        or reason.software_stack_changed
    )


def _has_other_reason(reason: Any, change: Any) -> bool:
    """Return whether a job would run even with unchanged code and unchanged producers."""
    external = set(reason.updated_input) - set(reason.updated_input_run)
    other_params = bool(change) and not _is_code_only(change)
    return bool(
        reason.forced
        or reason.missing_output
        or reason.incomplete_output
        or external
        or reason.input_changed
        or other_params
    )


def in_order(dag: Any, jobs: list[Any]) -> list[Any]:
    """Return jobs with producers before consumers."""
    selected_jobs = set(jobs)
    return [job for level in dag.toposorted() for job in level if job in selected_jobs]


def _by_rule(jobs: list[Any]) -> dict[str, list[Any]]:
    grouped = defaultdict(list)
    for job in jobs:
        grouped[job.rule.name].append(job)
    return grouped


def _name(job: Any) -> str:
    return consent.job_name(job.rule.name, job.wildcards.items())


def seconds_of(job: Any) -> float:
    """Return what a job took the last time, by Snakemake's benchmark file."""
    if not job.benchmark or not os.path.exists(job.benchmark):
        return 0.0
    with open(job.benchmark, newline="") as file:
        return sum(float(row["s"]) for row in csv.DictReader(file, delimiter="\t"))


def _gpus(job: Any) -> int:
    try:
        return int(job.resources.get("gpu", 0))
    except (TypeError, ValueError):
        return 0
