"""Servers that stay on a node between jobs, so that a model is loaded once for all jobs that ask it there.

A job that needs a server looks for one of its kind that no other job uses, and starts one if there is none. A server
serves one job at a time and leaves when no job has used it for some time, or when another job waits for its GPUs.

Each server has a few files in a folder of this node and user: `ID.json` (what it is), `ID.used` (locked by the job that
uses it), `ID.sock` (where it listens), `ID.log`, and `ID.leave` (it should leave as soon as no job uses it). All locks
are the kernel's, so a killed job or server leaves none behind.
"""

import contextlib
import fcntl
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json, write_json

FOLDER = "ROUNDHOUSE_ENGINES"  # environment variable: another folder for the servers' files
SERVER = "ROUNDHOUSE_SERVER"  # environment variable of a server: its name
SURROUNDINGS = ("CUDA_", "VLLM_", "HF_", "LOCAL_GPUS", "GPU_LOCKS")  # environment variables that a server depends on
POLL = 0.2  # seconds
ATTEMPTS = 5  # to use a server, with pauses
PAUSE = 0.1  # seconds
LOG_LINES = 30  # of a failed server's log, in the error


class ServerFailed(Exception):
    """Raised if a server ends before it serves. `status` is its exit status."""

    def __init__(self, status: int, log: str):
        super().__init__(f"the engine's server ended with exit status {status}:\n{log}")
        self.status = status


def folder() -> Path:
    """Return the folder of the servers' files. Within a Slurm job, servers are its own, since they end with it."""
    job = os.environ.get("SLURM_JOB_ID", "")
    path = Path(os.environ.get(FOLDER) or f"/tmp/roundhouse-engines-{os.getuid()}{'-' * bool(job)}{job}")
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_uid != os.getuid():
        raise BadInput(f"{path} belongs to another user: set {FOLDER} to a folder of yours")
    return path


def surroundings() -> dict[str, str]:
    """Return the environment variables that a server depends on. Jobs with other values need another server."""
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(SURROUNDINGS)}


class Place:
    """The files of one server."""

    def __init__(self, name: str):
        self.name = name
        self.record = folder() / f"{name}.json"
        self.used = folder() / f"{name}.used"
        self.socket = folder() / f"{name}.sock"
        self.log = folder() / f"{name}.log"
        self.leave = folder() / f"{name}.leave"

    def entry(self) -> dict[str, Any]:
        """Return what the record says; nothing if there is none."""
        with contextlib.suppress(FileNotFoundError):
            return read_json(self.record)
        return {}

    def try_to_use(self, attempts: int = 1) -> int | None:
        """Return a descriptor that holds the server for this process; None if another one holds it.

        A server holds its own lock for a moment when it looks whether it is used, so jobs make several attempts.
        """
        descriptor = os.open(self.used, os.O_RDWR | os.O_CREAT, 0o600)
        for attempt in range(attempts):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
            except BlockingIOError:
                if attempt + 1 < attempts:
                    time.sleep(PAUSE)

        os.close(descriptor)
        return None

    def remove(self) -> None:
        """Remove the files, so that no job finds the server any more."""
        for path in (self.record, self.socket, self.leave, self.log, self.used):
            path.unlink(missing_ok=True)


class Use:
    """A server, as the job that uses it."""

    def __init__(self, place: Place, descriptor: int, is_new: bool):
        self.place = place
        self.descriptor: int | None = descriptor
        self.is_new = is_new  # True if this job started it

    @property
    def is_held(self) -> bool:
        """Whether this job may use the server."""
        return self.descriptor is not None

    def end(self) -> None:
        """Leave the server to other jobs."""
        if self.descriptor is not None:
            os.close(self.descriptor)
        self.descriptor = None


def use(kind: str, command: Callable[[str], list[str]]) -> Use:
    """Return a server of this kind that serves this process alone from now on.

    `command` returns the command of a new server with this name. Raise ServerFailed if it does not come up.
    """
    for record in sorted(folder().glob("*.json")):
        place = Place(record.stem)
        entry = place.entry()
        if entry and entry["kind"] != kind and _is_alive(entry):
            continue
        descriptor = place.try_to_use(ATTEMPTS)
        if descriptor is None:
            continue

        entry = place.entry()
        if not entry or not _is_alive(entry):
            place.remove()
        elif entry["kind"] == kind:
            with contextlib.suppress(ServerFailed):
                _wait_for(place, lambda entry=entry: None if _is_alive(entry) else -1)
                return Use(place, descriptor, is_new=False)
        os.close(descriptor)

    return _start(kind, command)


def _start(kind: str, command: Callable[[str], list[str]]) -> Use:
    place = Place(uuid.uuid4().hex[:12])
    descriptor = place.try_to_use()
    assert descriptor is not None

    with open(place.log, "wb") as log:
        process = subprocess.Popen(  # in a session of its own: it goes on when the job has ended
            command(place.name),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | {SERVER: place.name},
            start_new_session=True,
        )
    write_json(place.record, {"kind": kind, "pid": process.pid, "begin": _begin_of(process.pid)})

    try:
        _wait_for(place, process.poll)
    except ServerFailed:
        os.close(descriptor)
        raise
    return Use(place, descriptor, is_new=True)


def _wait_for(place: Place, status_of: Callable[[], int | None]) -> None:
    """Wait until a server listens. Raise ServerFailed, and remove its files, if it has ended."""
    while True:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(place.socket))
            return

        status = status_of()
        if status is not None:
            lines = place.log.read_text(errors="replace").splitlines() if place.log.exists() else []
            place.remove()
            raise ServerFailed(status, "\n".join(lines[-LOG_LINES:]))
        time.sleep(POLL)


def _is_alive(entry: dict[str, Any]) -> bool:
    """Return whether the process of a record runs. A later process may have its number, but not its time of birth."""
    return _begin_of(entry["pid"]) == entry["begin"] is not None


def _begin_of(pid: int) -> str | None:
    """Return when a process began, as the kernel counts; None if it has ended."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else fields[18]


def retire() -> None:
    """Ask all servers that no job uses to leave, because a job waits for what they hold."""
    for record in folder().glob("*.json"):
        Place(record.stem).leave.touch()


def end_if_unused() -> None:
    """End this process if it is to become a server, and the job that started it has ended meanwhile."""
    name = os.environ.get(SERVER)
    if name and Place(name).try_to_use() is not None:
        Place(name).remove()
        sys.exit(1)


class Keeper:
    """The server's side: tells when it should leave."""

    def __init__(self, name: str, seconds: float):
        """It should leave when no job has used it for so many seconds."""
        self.place = Place(name)
        self.seconds = seconds
        self.last_use = time.monotonic()
        self.place.leave.unlink(missing_ok=True)

    def is_over(self) -> bool:
        """Return whether the server should leave now. Then no job can begin to use it. Call it once a second."""
        descriptor = self.place.try_to_use()
        if descriptor is None:
            self.last_use = time.monotonic()
            return False

        has_waited = time.monotonic() - self.last_use >= self.seconds
        is_over = has_waited or self.place.leave.exists() or not self.place.record.exists()
        if is_over:
            self.place.remove()
        os.close(descriptor)
        return is_over


def own_command(module: str, *arguments: str, gpus: int) -> list[str]:
    """Return the command of a server in a module of this package, on GPUs of its own."""
    launch = ["-m", "workflow_scripts.core.running.launch", "--gpus", str(gpus), "--", module]
    return [sys.executable, *launch, *arguments]
