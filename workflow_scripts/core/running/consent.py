"""Results whose code changed after they were made, and that a person accepted as they are.

`accepted_code.json` in a run's folder has an entry for each accepted job. From then on the job's code counts as the
code that its results were made with, for Snakemake and for the ledgers, until the code changes again.
"""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, TypedDict

from workflow_scripts.core.files import read_json, write_json

FILE = "accepted_code.json"


class Acceptance(TypedDict):
    """The acceptance of one job's results."""

    counts_as: str  # digest of the code that the results were made with
    accepted_for: str  # digest of the code at the time of acceptance
    outputs: list[str]
    changed: list[str]  # the definitions that differ, as "file: name"


@cache
def read_accepted(folder: Path) -> dict[str, Acceptance]:
    """Return the acceptances of a run by job."""
    path = folder / FILE
    return read_json(path) if path.exists() else {}


def identity(folder: Path, job: str, current: str) -> str:
    """Return the digest that a job's code counts as: the current one, unless earlier results were accepted for it."""
    acceptance = read_accepted(folder).get(job)
    return acceptance["counts_as"] if acceptance and acceptance["accepted_for"] == current else current


def accept(folder: Path, acceptances: dict[str, Acceptance]) -> None:
    """Add acceptances to a run."""
    write_json(folder / FILE, read_accepted(folder) | acceptances)
    read_accepted.cache_clear()


def accepted_outputs(folder: Path) -> set[str]:
    """Return the files that were made by earlier code and accepted."""
    return {output for acceptance in read_accepted(folder).values() for output in acceptance["outputs"]}


def job_name(rule: str, wildcards: Iterable[tuple[str, Any]]) -> str:
    """Return the name of a job in `accepted_code.json`, such as "grade place=results/r1/auto shard=2_0"."""
    return " ".join([rule, *(f"{name}={value}" for name, value in sorted(wildcards))])
