"""Read how far a job is: from the progress bar in its log, or from the newest saved state of a training."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

# A bar of tqdm ends in "450/1008 [00:02<00:05, 401.23record/s]", or "2.00s/record" if it is slow.
BAR = re.compile(r"\| *(\d+)/(\d+) \[[^\]]*?, +(?:\d[\d.]*|\?)(?:s/)?([A-Za-z]+)")
TAIL = 4000  # bytes of a log that hold its last bar


@dataclass
class Progress:
    """What a job has done of its work."""

    done: int
    total: int
    unit: str  # such as record or update

    @property
    def share(self) -> float:
        return self.done / self.total if self.total else 1.0

    def __str__(self) -> str:
        return f"{self.done:,} of {self.total:,} {self.unit}s"


def progress_of(log: str | Path, state: str | Path) -> Progress | None:
    """Return how far a job is, by its log or, if that shows nothing, by its saved training states."""
    return in_log(log) or in_states(state)


def in_log(log: str | Path) -> Progress | None:
    """Return what the last progress bar of a log shows; None if there is none."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return None

    bars = BAR.findall(text)
    if not bars:
        return None
    done, total, unit = bars[-1]
    return Progress(int(done), int(total), unit)


def in_states(folder: str | Path) -> Progress | None:
    """Return the update of the newest saved state of a training; None if there is none."""
    newest = None

    for mark in Path(folder).glob("*/checkpoint-*/complete"):  # training/watch.py writes the mark last
        try:
            state = json.loads(mark.with_name("trainer_state.json").read_text())
        except (OSError, ValueError):  # training removes old states while this reads them
            continue
        if newest is None or state["global_step"] > newest.done:
            newest = Progress(state["global_step"], state["max_steps"], "update")

    return newest
