"""How long a job may run: long stages end by themselves before their scheduler kills them, with nothing lost."""

import math
import os
import subprocess
import time
from datetime import datetime
from functools import cache

BEGAN = time.time()  # of this process, nearly
STATUS = os.EX_TEMPFAIL  # 75: finished work is kept, the same command goes on from there


class OutOfTime(Exception):
    """The job's time is nearly up, and what was finished is on disk."""


@cache
def deadline() -> float:
    """When this job's time is up, in Unix time; infinite where nobody says so.

    JOB_DEADLINE (Unix time) says so under any scheduler; under Slurm it is asked.
    """
    if given := os.environ.get("JOB_DEADLINE") or os.environ.get("SLURM_JOB_END_TIME"):
        return float(given)
    if job := os.environ.get("SLURM_JOB_ID"):
        command = ["squeue", "-h", "-j", job, "-o", "%e"]
        standard = os.environ | {"SLURM_TIME_FORMAT": "standard"}
        try:
            asked = subprocess.run(command, capture_output=True, text=True, env=standard, timeout=60)
            return datetime.fromisoformat(asked.stdout.strip()).timestamp()
        except (OSError, subprocess.TimeoutExpired, ValueError):  # no squeue here, no answer, or no limit
            pass
    return math.inf


class Pace:
    """Whether another step fits before the deadline, judged by the longest one so far."""

    def __init__(self, until: float | None = None):
        self.until = deadline() if until is None else until
        self.last, self.longest = time.time(), 0.0

    def is_over(self, reserve: float = 0.0) -> bool:
        """To be asked after each step. `reserve`: seconds that the end itself needs, beyond what is always kept free:
        a twentieth of the job's time, from 20 s to 10 min."""
        now = time.time()
        self.longest, self.last = max(self.longest, now - self.last), now
        free = min(max(20.0, (self.until - BEGAN) / 20), 600.0)
        return now + 1.5 * self.longest + free + reserve > self.until
