"""Data parallelism within a job: replicas of a record stage, each on GPUs of its own, share the work by the ledger.

The first replica starts the others as the same command. Each computes its part of the batches. The first one then
waits for the others and finds their results in the ledger. A batch belongs to one replica as a whole, so results do not
depend on the number of replicas.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.running.deadline import OUT_OF_TIME_STATUS, OutOfTime
from workflow_scripts.core.running.status import HOPELESS

REPLICA = "ROUNDHOUSE_REPLICA"  # environment variable of all replicas but the first: "{number}/{count}", such as 1/4
PR_SET_PDEATHSIG = 1

Batch = TypeVar("Batch")


def is_first_process() -> bool:
    """Return whether this is the process of a stage that speaks, checks and writes for all others."""
    return not int(os.environ.get("RANK", 0)) and REPLICA not in os.environ


def die_with_parent() -> None:
    """Let the kernel end this process when the process that started it is gone, however that ended."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Team(Protocol):
    """Processes that share the batches of a record stage."""

    def part(self, batches: Sequence[Batch]) -> Sequence[Batch]:
        """Return the batches that this process computes."""
        ...

    def in_step(self, batches: Sequence[Sequence[int]]) -> list[Sequence[int]]:
        """Return the batches to compute, without empty ones unless the others need this process in more steps."""
        ...

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set; if all processes work in step, whether it is set in some process."""
        ...

    def wait(self) -> Any:
        """Wait until the other processes have ended."""
        ...

    def join(self) -> None:
        """Wait in the first process until the others are done; end the process in all others."""
        ...


class Replicas:
    """The replicas of this stage: as many as the visible GPUs allow, with `gpus` each (None: one on all GPUs)."""

    def __init__(self, gpus: int | None):
        self.others: list[subprocess.Popen] = []

        if own := os.environ.get(REPLICA):
            self.number, self.count = map(int, own.split("/"))
            return

        visible = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
        each = gpus or max(1, len(visible))
        self.number = 0
        self.count = max(1, len(visible) // each)
        shares = [",".join(visible[i * each : (i + 1) * each]) for i in range(self.count)]

        for i in range(1, self.count):
            environment = os.environ | {REPLICA: f"{i}/{self.count}", "CUDA_VISIBLE_DEVICES": shares[i]}
            command = [sys.executable, *sys.orig_argv[1:]]
            self.others.append(subprocess.Popen(command, env=environment, preexec_fn=die_with_parent))

        if visible:
            os.environ["CUDA_VISIBLE_DEVICES"] = shares[0]

    def part(self, batches: Sequence[Batch]) -> Sequence[Batch]:
        """Return the batches that this replica computes."""
        return batches[self.number :: self.count]

    def in_step(self, batches: Sequence[Sequence[int]]) -> list[Sequence[int]]:
        """Return the batches that are not empty. Replicas do not need each other."""
        return [batch for batch in batches if batch]

    def any(self, flag: bool) -> bool:
        """Return the flag: each replica decides for itself."""
        return flag

    def wait(self) -> list[int]:
        """Wait until the other replicas have ended and return their exit statuses."""
        return [other.wait() for other in self.others]

    def join(self) -> None:
        """Wait in the first replica until the others are done; end the process in all others."""
        if self.number:
            sys.exit(0)

        statuses = self.wait()
        for number, status in enumerate(statuses, 1):
            if status in HOPELESS:
                raise BadInput(f"replica {number} of {self.count} failed; its message stands above")
            if status not in (0, OUT_OF_TIME_STATUS):
                how = f"was killed by signal {-status}" if status < 0 else "failed; its message stands above"
                raise RuntimeError(f"replica {number} of {self.count} {how}")

        if any(statuses):
            raise OutOfTime("another replica ran out of time")
