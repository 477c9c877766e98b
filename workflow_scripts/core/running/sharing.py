"""Limits that parallel jobs share: an endpoint's rate, its requests in flight, and a lock for its budget.

The state is a few small files in a folder that all jobs see, beside the ledger of requests. All locks are the kernel's
(flock), so a killed job leaves none behind. On a file system that keeps flock to one node, limits hold per node.
"""

import asyncio
import contextlib
import fcntl
import os
import random
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

TIMES = struct.Struct("dd")  # when the next request, and the next token, may pass (Unix time)
POLL = 0.05  # seconds between two looks at what another job holds


class SharedLimits:
    """The limits of one endpoint, as one of the jobs that share them.

    Units pass evenly spread over time: a leaky bucket, without the bursts that a server would refuse. A killed job
    wastes at most the one place in time that it was waiting for.
    """

    def __init__(
        self, folder: Path, concurrency: int, requests_per_minute: float | None, tokens_per_minute: float | None
    ):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.seconds_per_request = 60 / requests_per_minute if requests_per_minute else 0.0
        self.seconds_per_token = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self.places = [folder / f"in_flight-{number}" for number in range(concurrency)]
        self.own_places: set[Path] = set()
        self.turn = asyncio.Lock()  # one request of this job at a time waits for its place in time

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock that all jobs share. Do nothing long with it."""
        with open(self.folder / "lock", "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    async def wait(self, tokens: int) -> None:
        """Wait until a request with so many tokens may pass."""
        if not (self.seconds_per_request or self.seconds_per_token):
            return
        async with self.turn:
            await asyncio.sleep(self._reserve(tokens) - time.time())

    def _reserve(self, tokens: int) -> float:
        """Take the next place in time and return it."""
        with self.locked():
            file = os.open(self.folder / "times", os.O_RDWR | os.O_CREAT, 0o644)
            try:
                stored = os.pread(file, TIMES.size, 0)
                next_request, next_token = TIMES.unpack(stored) if len(stored) == TIMES.size else (0.0, 0.0)
                start = max(time.time(), next_request, next_token)
                times = start + self.seconds_per_request, start + tokens * self.seconds_per_token
                os.pwrite(file, TIMES.pack(*times), 0)
            finally:
                os.close(file)
        return start

    @contextlib.asynccontextmanager
    async def in_flight(self, check: Callable[[], None]) -> AsyncIterator[None]:
        """Hold one of the endpoint's places for a request. While all are taken, `check` may raise an error."""
        while (taken := self._take_place()) is None:
            check()
            await asyncio.sleep(POLL * random.uniform(0.5, 1.5))

        place, file = taken
        self.own_places.add(place)
        try:
            yield
        finally:
            self.own_places.discard(place)
            os.close(file)

    def _take_place(self) -> tuple[Path, int] | None:
        """Return a free place and the descriptor that holds its lock."""
        for place in self.places:
            if place in self.own_places:
                continue
            file = os.open(place, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return place, file
            except BlockingIOError:
                os.close(file)
        return None

    def others_are_in_flight(self) -> bool:
        """Return whether another job waits for an answer."""
        for place in self.folder.glob("in_flight-*"):
            if place in self.own_places:
                continue
            with open(place) as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return True
        return False
