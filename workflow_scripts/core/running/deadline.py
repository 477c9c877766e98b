"""Tell when a job's time is up. Long stages end by themselves before the scheduler kills them, so nothing is lost."""

import math
import os
import subprocess
import time
from datetime import datetime
from functools import cache

STARTED = time.time()  # of this process, nearly
OUT_OF_TIME_STATUS = os.EX_TEMPFAIL  # 75: finished work is kept, and the same command goes on from there


class OutOfTime(Exception):
    """Raised when the job's time is nearly up and everything that was finished is on disk."""


@cache
def deadline() -> float:
    """Return the Unix time at which this job's time is up, or infinity if no scheduler sets a limit.

    The environment variable JOB_DEADLINE (Unix time) tells it under any scheduler. Under Slurm, squeue is asked.
    """
    if known := os.environ.get("JOB_DEADLINE") or os.environ.get("SLURM_JOB_END_TIME"):
        return float(known)

    if job := os.environ.get("SLURM_JOB_ID"):
        command = ["squeue", "-h", "-j", job, "-o", "%e"]
        environment = os.environ | {"SLURM_TIME_FORMAT": "standard"}

        try:
            answer = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
            return datetime.fromisoformat(answer.stdout.strip()).timestamp()
        except (OSError, subprocess.TimeoutExpired, ValueError):
            return math.inf  # no squeue on this node, no answer from it, or no limit

    return math.inf


class Pace:
    """Tells whether another step fits before the deadline, from the longest step so far."""

    def __init__(self, until: float | None = None):
        self.until = deadline() if until is None else until
        self.last_step = time.time()
        self.longest = 0.0

    def is_over(self, reserve: float = 0.0) -> bool:
        """Return whether the next step might not end in time. Call it once after each step.

        `reserve` is the number of seconds that the stage needs to finish. A twentieth of the job's time, but at least
        20 s and at most 10 min, is kept free on top of it.
        """
        now = time.time()
        self.longest = max(self.longest, now - self.last_step)
        self.last_step = now
        margin = min(max(20.0, (self.until - STARTED) / 20), 600.0)

        return now + 1.5 * self.longest + margin + reserve > self.until
