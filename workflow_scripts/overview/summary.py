"""Sum up the jobs of a run by round and stage, for a table and for scripts."""

import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from workflow_scripts.overview.estimate import Pace, rest_of
from workflow_scripts.overview.jobs import STATES, Job, Survey
from workflow_scripts.overview.progress import Progress


@dataclass
class Stage:
    """The jobs of one stage in one round."""

    round: int
    name: str
    jobs: list[Job]
    seconds: float  # spent on it so far
    left: float | None  # seconds of work that are left; None if unknown

    @property
    def counts(self) -> dict[str, int]:
        """The number of jobs in each state, in the order of STATES."""
        counted = Counter(job.state for job in self.jobs)
        return {state: counted[state] for state in STATES if counted[state]}

    @property
    def state(self) -> str:
        """The state that matters most among its jobs."""
        return next(iter(self.counts))

    @property
    def progress(self) -> Progress | None:
        """What the jobs that have a progress have done together."""
        parts = [job.progress for job in self.jobs if job.progress]
        if not parts:
            return None
        return Progress(sum(part.done for part in parts), sum(part.total for part in parts), parts[0].unit)

    @property
    def reasons(self) -> list[str]:
        """Why its jobs are pending: their own reasons, or the stages that they follow from."""
        texts: dict[str, None] = {}
        for job in self.jobs:
            if job.state in ("done", "running", "queued"):
                continue
            own = [reason for reason in job.reasons if reason != "not made yet" or job.state != "pending"]
            waits = [f"follows from {', '.join(job.follows)}"] if job.follows else []
            texts |= dict.fromkeys(own or waits or job.reasons)
        return list(texts)


def stages_of(survey: Survey, now: float) -> list[Stage]:
    """Return the stages of all rounds, in the order of the rounds and of the work."""
    pace = Pace(survey)
    members: dict[tuple[int, str], list[Job]] = {}
    for job in survey.jobs:
        members.setdefault((job.round, job.stage), []).append(job)

    stages = []
    for (number, name), jobs in members.items():
        rests = [pace.rest(job, now) for job in jobs]
        left = None if None in rests else sum(rest or 0.0 for rest in rests)
        stages.append(Stage(number, name, jobs, sum(_spent(job, now) for job in jobs), left))

    return sorted(stages, key=lambda stage: stage.round)


def _spent(job: Job, now: float) -> float:
    if job.state == "running" and job.started:
        return now - job.started
    return job.seconds if job.state == "done" else 0.0


def ready_stages(survey: Survey) -> list[str]:
    """Return the stages whose next jobs could start now, as "generate auto of round 2"."""
    ready = [
        f"{job.stage} of round {job.round}"
        for job in survey.jobs
        if job.state not in ("done", "running", "queued")
        and not any(survey.jobs[number].pending for number in job.needs)
    ]
    return list(dict.fromkeys(ready))


def as_json(survey: Survey) -> dict[str, Any]:
    """Return everything that `status` knows, for scripts."""
    now = time.time()
    seconds, unknown = rest_of(survey, now)
    counts = Counter(job.state for job in survey.jobs)
    current = survey.driver

    return {
        "run": survey.run,
        "task": survey.task,
        "jobs": {state: counts[state] for state in STATES},
        "driven": survey.is_driven,
        "driver": vars(current) if current else None,
        "next": ready_stages(survey),
        "seconds_left": seconds,
        "without_estimate": unknown,
        "stages": [
            {
                "round": stage.round,
                "stage": stage.name,
                "state": stage.state,
                "jobs": stage.counts,
                "progress": vars(stage.progress) if stage.progress else None,
                "seconds_spent": round(stage.seconds, 1),
                "seconds_left": stage.left,
                "reasons": stage.reasons,
            }
            for stage in stages_of(survey, now)
        ],
    }
