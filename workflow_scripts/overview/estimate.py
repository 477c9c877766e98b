"""Estimate what the rest of a run takes, from what its finished jobs took."""

import heapq
import os
import time
from collections import defaultdict
from statistics import mean

from workflow_scripts.overview.jobs import Job, Survey

STARTED_SHARE = 0.05  # the share of a job's work from which on its own pace is the better guide


class Pace:
    """The seconds that jobs of each stage took in a run."""

    def __init__(self, survey: Survey):
        self.by_stage: dict[str, list[float]] = defaultdict(list)
        self.by_rule: dict[str, list[float]] = defaultdict(list)

        for job in survey.jobs:
            if job.seconds:
                self.by_stage[job.stage].append(job.seconds)
                self.by_rule[job.rule].append(job.seconds)

    def whole(self, job: Job) -> float | None:
        """Return what a job takes from beginning to end; None if no job like it was ever finished."""
        if job.seconds or not job.measured:
            return job.seconds
        alike = self.by_stage.get(job.stage) or self.by_rule.get(job.rule)
        return mean(alike) if alike else None

    def rest(self, job: Job, now: float) -> float | None:
        """Return what is left of a job; None if that is unknown."""
        if job.state == "done":
            return 0.0

        whole = self.whole(job)
        share = job.progress.share if job.progress else 0.0
        if job.state != "running" or job.started is None:
            return whole if whole is None else whole * (1 - share)

        elapsed = now - job.started
        if share > STARTED_SHARE:
            return elapsed * (1 - share) / share
        return whole if whole is None else max(whole - elapsed, 0.0)


def rest_of(survey: Survey, now: float | None = None) -> tuple[float, list[str]]:
    """Return the seconds until all jobs are done, and the stages that these leave out because nobody knows them."""
    now = time.time() if now is None else now
    pace = Pace(survey)
    rests = [pace.rest(job, now) for job in survey.jobs]
    unknown = [job.stage for job, rest in zip(survey.jobs, rests) if rest is None]
    seconds = schedule(survey, [rest or 0.0 for rest in rests])
    return seconds, list(dict.fromkeys(unknown))


def schedule(survey: Survey, seconds: list[float]) -> float:
    """Return when the last job ends, if each starts as soon as its inputs and the cores are there.

    On a cluster, a job takes one of `jobs_at_once` places; on one machine, it takes as many cores as it has threads.
    """
    places = survey.jobs_at_once or survey.cores or os.cpu_count() or 1
    sizes = [1 if survey.jobs_at_once else min(job.threads, places) for job in survey.jobs]
    waiting = {number: set(job.needs) for number, job in enumerate(survey.jobs)}
    consumers = defaultdict(list)
    for number, job in enumerate(survey.jobs):
        for producer in job.needs:
            consumers[producer].append(number)

    ready = [number for number, needs in waiting.items() if not needs]
    heapq.heapify(ready)
    working: list[tuple[float, int]] = []  # (end, number)
    free = places
    now = 0.0

    while ready or working:
        while ready and sizes[ready[0]] <= free:
            number = heapq.heappop(ready)
            free -= sizes[number]
            heapq.heappush(working, (now + seconds[number], number))

        now, number = heapq.heappop(working)
        free += sizes[number]
        for consumer in consumers[number]:
            waiting[consumer].discard(number)
            if not waiting[consumer]:
                heapq.heappush(ready, consumer)

    return now
