"""The driver of a run: the Snakemake process that starts its jobs, as other processes may know it.

`driver.json` in the run's folder says which machine and process it is, with which target and config it was started, and
how it ended. `workflow_scripts.status` reads it, so this file needs no Snakemake.

A run has one driver at a time. It holds the kernel's lock on `driver.lock` in the run's folder. The lock is gone when
the driver ends, in whatever way, so a free lock proves that an earlier driver on this machine is dead. Then Snakemake's
own locks, which it left, are removed, and jobs that go on without it are waited for. Whether a driver on another
machine is alive cannot be told from here, so its locks stay until a person removes them.
"""

import fcntl
import os
import re
import socket
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json, write_json

NAME = "driver.json"
LOCK = "driver.lock"
SNAKEMAKE_LOCKS = Path(".snakemake/locks")
PATIENCE = 3.0  # seconds, in which another process may look whether the lock is free
STAGE = re.compile(r"\bworkflow_scripts\.([\w.]+)")  # in a command line
POLL = 0.5  # seconds between two looks at jobs that are waited for

held: dict[str, int] = {}  # the descriptors of the locks that this process holds, by the run's folder


@dataclass
class Driver:
    """A process that made, or makes, a run's files."""

    host: str
    pid: int
    born: str  # when the process started, as Linux counts, to tell it from a later process with its number
    started: float  # seconds since the epoch
    arguments: list[str]  # the targets and options that say what is made
    ended: float | None = None
    succeeded: bool | None = None

    @property
    def is_working(self) -> bool:
        """True if the process still runs. Of a process on another machine only its note is known."""
        if self.ended is not None:
            return False
        return self.host != socket.gethostname() or _birth(self.pid) == self.born


def note_start(folder: str, arguments: list[str]) -> None:
    """Note that this process drives the run from now on."""
    pid = os.getpid()
    driver = Driver(socket.gethostname(), pid, _birth(pid), time.time(), arguments)
    write_json(Path(folder) / NAME, asdict(driver))


def note_end(folder: str, succeeded: bool) -> None:
    """Note that this process is done with the run."""
    driver = read(folder)
    if driver and driver.pid == os.getpid():
        write_json(Path(folder) / NAME, asdict(driver) | {"ended": time.time(), "succeeded": succeeded})


def read(folder: str | Path) -> Driver | None:
    """Return the last driver of a run; None if none was noted."""
    path = Path(folder) / NAME
    return Driver(**read_json(path)) if path.exists() else None


def latest(runs: Path = Path("runs")) -> Driver | None:
    """Return the driver that started last among all runs; one that still works comes first."""
    drivers = [read(path.parent) for path in runs.glob(f"*/{NAME}")]
    return max(filter(None, drivers), key=lambda driver: (driver.is_working, driver.started), default=None)


def _birth(pid: int) -> str:
    """Return when a process of this machine started, in the clock ticks of its `stat`; "" if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except OSError:
        return ""


# ---------------------------------------------------------------- one driver at a time


def claim(folder: str) -> None:
    """Make this process the only driver of a run until it ends, and clear up after a driver that was killed.

    Raises:
        BadInput: if another driver works on the run.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    file = os.open(Path(folder) / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    before = os.pread(file, 1000, 0).decode(errors="replace")

    try:
        has_lock = _lock(file)
    except OSError as error:  # a file system without locks
        print(f"{folder}/{LOCK} cannot be locked ({error.strerror})", file=sys.stderr)
        os.close(file)
        return
    if not has_lock:
        os.close(file)
        raise BadInput(
            f"another snakemake works on {folder} ({before.strip()}): let it finish, or end it, and type the same "
            "command again"
        )

    left = locks_of(folder)
    if left and _host_in(before) != socket.gethostname():
        os.close(file)
        who = before.strip() or "which began with an earlier version"
        raise BadInput(
            f"a snakemake ({who}) works on {folder}, or was killed. Where it ran, look whether it still works. If it "
            "does not, type `snakemake --unlock` and the same command again"
        )

    held[folder] = file
    for path in left:
        path.unlink()
        print(f"removed {path}, which a killed snakemake left", file=sys.stderr)
    wait_for_jobs(folder)
    os.truncate(file, 0)
    os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)


def _lock(file: int) -> bool:
    """Take the lock of a driver, and return whether that succeeded."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(0.1)


def _host_in(note: str) -> str:
    return note.strip().rpartition(" on ")[2]


def state(folder: str) -> Literal["working", "ended", "unknown"]:
    """Return what the last driver of a run does. `unknown` is one of another machine or of an earlier version."""
    try:
        with open(Path(folder) / LOCK) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return "ended" if _host_in(file.read()) == socket.gethostname() else "unknown"
    except BlockingIOError:
        return "working"
    except OSError:  # there is none, or it cannot be locked
        return "unknown"


def locks_of(folder: str) -> list[Path]:
    """Return Snakemake's locks on files of a run. Other runs' locks may name such files too, beside their own."""
    locks = []
    for path in sorted(SNAKEMAKE_LOCKS.glob("*.lock")):
        runs = {Path(line).parts[:2] for line in path.read_text().splitlines() if line.startswith("runs/")}
        if runs == {Path(folder).parts[:2]}:
            locks.append(path)
    return locks


def jobs_at_work(folder: str) -> dict[int, str]:
    """Return the stages of a run, and the shells that start them, at work on this machine: {process: stage}.

    Engines that stay loaded between jobs (`generate.keep_engine`) are no jobs: they wait for the next one.
    """
    here = os.getcwd()
    jobs = {}

    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_text(errors="replace")
            is_here = os.readlink(process / "cwd") == here
        except OSError:
            continue
        stages = STAGE.findall(command)
        is_stage = bool(stages) and not stages[-1].startswith("engines.")
        if is_here and is_stage and f"{folder}/" in command:
            jobs[int(process.name)] = stages[-1]

    return jobs


def wait_for_jobs(folder: str) -> None:
    """Wait until the jobs have ended that a killed driver left: beside them, the same work would be done twice."""
    jobs = jobs_at_work(folder)
    if jobs:
        names = ", ".join(f"{stage} (process {pid})" for pid, stage in sorted(jobs.items()))
        print(
            f"waiting for jobs of a killed snakemake, whose results will be used: {names}. To do without, end them",
            file=sys.stderr,
        )
    while jobs_at_work(folder):
        time.sleep(POLL)
