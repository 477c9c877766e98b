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


def die_with_parent() -> None:
    """Let the kernel end this process when the one that started it is gone, however that died."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Copies:
    """As many as the visible GPUs allow, `gpus` to each (None: all of them to one copy)."""

    def __init__(self, gpus: int | None):
        self.others: list[subprocess.Popen] = []
        if given := os.environ.get(NUMBER):
            self.number, self.count = map(int, given.split("/"))
            return
        visible = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
        each = gpus or max(1, len(visible))
        self.number, self.count = 0, max(1, len(visible) // each)
        shares = [",".join(visible[i * each : (i + 1) * each]) for i in range(self.count)]
        for i in range(1, self.count):
            environment = os.environ | {NUMBER: f"{i}/{self.count}", "CUDA_VISIBLE_DEVICES": shares[i]}
            command = [sys.executable, *sys.orig_argv[1:]]
            self.others.append(subprocess.Popen(command, env=environment, preexec_fn=die_with_parent))
        if visible:
            os.environ["CUDA_VISIBLE_DEVICES"] = shares[0]

    def part(self, batches: list) -> list:
        """The batches that are this copy's."""
        return batches[self.number :: self.count]

    def wait(self) -> list[int]:
        """The others' exit statuses, once they have ended."""
        return [other.wait() for other in self.others]

    def join(self) -> None:
        """Wait until the others are done; they end here."""
        if self.number:
            sys.exit(0)
        statuses = dict(enumerate(self.wait(), 1))
        for number, status in statuses.items():
            if status not in (0, STATUS):
                how = f"was killed by signal {-status}" if status < 0 else "failed; its message stands above"
                raise RuntimeError(f"copy {number} of {self.count} {how}")
        if any(statuses.values()):
            raise OutOfTime("another copy ran out of time")
