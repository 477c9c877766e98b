"""The processes that train or score together: torchrun starts them, one per GPU. A process may also work alone."""

import os
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

PATIENCE = timedelta(hours=1)  # that ranks wait for each other: the first one reads and checks the model meanwhile

Value = TypeVar("Value")


def count() -> int:
    """Return the number of processes."""
    return int(os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    """Return the number of this process."""
    return int(os.environ.get("RANK", 0))


def device() -> torch.device:
    """Return where this process computes."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))


def join() -> None:
    """Make this process a member of the group of all processes, which may consist of it alone."""
    if dist.is_initialized():
        return

    options: dict[str, Any] = {"timeout": PATIENCE}
    if device().type == "cuda":
        torch.cuda.set_device(device())
    else:
        options["backend"] = "gloo"
    if "RANK" not in os.environ:
        options |= {"store": dist.HashStore(), "rank": 0, "world_size": 1}  # type: ignore[attr-defined]
    dist.init_process_group(**options)


def leave() -> None:
    """Leave the group, if this process is in one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def from_first(decide: Callable[[], Value]) -> Value:
    """Return what `decide` returns on rank 0, on all ranks.

    What depends on a file system must be decided once, because nodes may see a shared folder differently for a while.
    """
    if count() == 1:
        return decide()

    values = [decide() if rank() == 0 else None]
    dist.broadcast_object_list(values, src=0)
    return values[0]  # type: ignore[return-value]


class Ranks:
    """The processes that score together (core/running/replicas.py, `Team`). Their model needs them all in each step."""

    def part(self, batches: Sequence[Value]) -> Sequence[Value]:
        """Return the batches that this rank computes."""
        return batches[rank() :: count()]

    def in_step(self, batches: Sequence[Sequence[int]]) -> list[Sequence[int]]:
        """Return the batches that are not empty, and as many empty ones as make the number of steps that of others."""
        filled = [batch for batch in batches if batch]
        steps = self._largest(len(filled))
        return filled + [[]] * (steps - len(filled))

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set on some rank."""
        return self._largest(int(flag)) > 0

    def wait(self) -> None:
        """All ranks come here together, so there is nothing to wait for."""

    def join(self) -> None:
        """Wait on rank 0 until all ranks are done; end the process on all others."""
        dist.barrier()
        leave()
        if rank():
            sys.exit(0)

    def _largest(self, value: int) -> int:
        values = torch.tensor([value], device=device())
        dist.all_reduce(values, dist.ReduceOp.MAX)
        return int(values.item())
