"""The driver of a run: the Snakemake process that starts its jobs, as other processes may know it.

`driver.json` in the run's folder says which machine and process it is, with which target and config it was started, and
how it ended. `workflow_scripts.status` reads it, so this file needs no Snakemake.
"""

import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from workflow_scripts.core.files import read_json, write_json

NAME = "driver.json"


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
