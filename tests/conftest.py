"""Fixtures that all tests share."""

import os
import shutil
import time

import pytest
from filelock import FileLock

from tests.conversations import tokenizers  # noqa: F401  a fixture
from tests.harness import Copy, tiny_config
from workflow_scripts.core.running.deadline import deadline


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Copy:
    """Return a finished round 1 of the tiny experiment. Tests that change something work on `fork` instead."""
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if os.environ.get("PYTEST_XDIST_WORKER") else folder) / "finished"

    with FileLock(f"{folder}.lock"):  # the first of pytest's processes makes it, and the others wait
        if not (folder / "output.txt").exists():
            output = Copy(folder, tiny_config()).snakemake("round1_checkpoint")
            (folder / "output.txt").write_text(output)

    return Copy.at(folder)


@pytest.fixture
def fork(finished, tmp_path) -> Copy:
    """Return a copy of the finished run, to be changed at will, with Snakemake's own records."""
    shutil.copytree(finished.folder, tmp_path / "fork", symlinks=True)
    return Copy.at(tmp_path / "fork")


@pytest.fixture
def time_is_up(monkeypatch):
    """Let the job's time be up in a second, so that each run of a stage makes the least progress that there is."""
    monkeypatch.setenv("JOB_DEADLINE", str(time.time() + 1))
    deadline.cache_clear()
    yield
    monkeypatch.undo()
    deadline.cache_clear()
