"""Data parallelism within a job: copies of a record stage, each on GPUs of its own, share the work by the ledger.

The first copy starts the others as the same command, does its part of the batches as they do theirs, waits for them,
and finds their results in the ledger. A batch is one copy's as a whole, so results do not depend on their number.
"""

import ctypes
import os
import signal
import subprocess
import sys

from workflow_scripts.core.deadline import STATUS, OutOfTime

NUMBER = "ROUNDHOUSE_COPY"  # of another copy than the first, and how many there are: "1/4"
PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Copies:
    """As many as the visible GPUs allow, `gpus` to each (None: all of them to one copy)."""

    def __init__(self, gpus: int | None):
        self.others: list[subprocess.Popen] = []
        if given := os.environ.get(NUMBER):
            self.number, self.count = map(int, given.split("/"))
            return
        visible = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
        self.number, self.count = 0, max(1, len(visible) // gpus if gpus else 1)
        shares = [visible[i * (gpus or 0) : (i + 1) * (gpus or 0)] for i in range(self.count)]
        for i in range(1, self.count):
            environment = os.environ | {NUMBER: f"{i}/{self.count}", "CUDA_VISIBLE_DEVICES": ",".join(shares[i])}
            command = [sys.executable, *sys.orig_argv[1:]]
            self.others.append(subprocess.Popen(command, env=environment, preexec_fn=_die_with_parent))
        if self.count > 1:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(shares[0])

    def part(self, batches: list) -> list:
        """The batches that are this copy's."""
        return batches[self.number :: self.count]

    def join(self) -> None:
        """Wait until the others are done; they end here."""
        if self.number:
            sys.exit(0)
        statuses = [other.wait() for other in self.others]
        if STATUS in statuses:
            raise OutOfTime("another copy ran out of time")
        if failed := [number for number, status in enumerate(statuses, 1) if status]:
            raise RuntimeError(f"copy {failed[0]} of {self.count} failed; its message stands above")
