"""A run has one driver at a time, and what a killed one left is no obstacle and no danger."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.harness import NOTHING_TO_DO, Copy, kill, tiny_config, wait_for
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.running.manifest import file_digest
from workflow_scripts.workflow import driver

PROMPTS = "runs/arithmetic/prompts/train.parquet"
SEED = ("--config", "seed=1")
CLI = "workflow_scripts/core/running/cli.py"  # no code digest covers it
WAIT = "__import__('subprocess').run('until [ -e go ]; do sleep 0.1; done', shell=True)"


@pytest.fixture(scope="module")
def waiting(tmp_path_factory) -> Copy:
    """Return a copy whose stages wait for the file `go`."""
    copy = Copy(tmp_path_factory.mktemp("waiting") / "copy", tiny_config())
    copy.edit(CLI, "    main = with_seal(main)\n", f"    {WAIT}\n    main = with_seal(main)\n")
    return copy


@pytest.fixture
def copy(waiting, tmp_path) -> Copy:
    shutil.copytree(waiting.folder, tmp_path / "copy", symlinks=True)
    return Copy.at(tmp_path / "copy")


@pytest.fixture
def here(copy, monkeypatch) -> Copy:
    monkeypatch.chdir(copy.folder)
    return copy


def started(copy: Copy, *options: str) -> subprocess.Popen:
    """Start a driver and wait until its first job is at work."""
    process = copy.start(PROMPTS, *options)
    wait_for(lambda: driver.jobs_at_work("runs/arithmetic"), process)
    return process


def locks() -> list[Path]:
    return list(driver.SNAKEMAKE_LOCKS.glob("*"))


# ---------------------------------------------------------------- two drivers


@pytest.mark.long
def test_a_second_driver_is_refused_and_the_first_goes_on(here):
    first = started(here)
    output = here.snakemake(PROMPTS, fails=True)
    assert f"another snakemake works on runs/arithmetic (process {first.pid} on {socket.gethostname()})" in output
    assert locks()

    # A driver of another run ends meanwhile. Snakemake then removes the locks of all drivers in this folder.
    shutil.rmtree(".snakemake/locks")
    assert "another snakemake works on" in here.snakemake(PROMPTS, *SEED, fails=True)
    assert "freeze_prompts" in here.snakemake("-n", PROMPTS)  # it may look on

    (here.folder / "go").touch()
    output, _ = first.communicate()
    assert first.returncode == 0, output
    assert NOTHING_TO_DO in here.snakemake("-n", PROMPTS)


# ---------------------------------------------------------------- after a killed one


def test_a_killed_driver_and_its_jobs_leave_no_lock(here):
    kill(started(here))
    wait_for(lambda: not driver.jobs_at_work("runs/arithmetic"))
    assert locks()
    (here.folder / "go").touch()

    assert "which a killed snakemake left" in here.snakemake(PROMPTS)
    assert not locks()


def test_jobs_of_a_killed_driver_are_waited_for(here):
    process = started(here)
    jobs = driver.jobs_at_work("runs/arithmetic")
    assert "freeze_prompts" in jobs.values()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    second = here.start(PROMPTS)
    lines = []
    for line in second.stdout:
        lines.append(line)
        if "waiting for jobs of a killed snakemake" in line:
            assert all(f"{stage} (process {pid})" in line for pid, stage in jobs.items())
            break
    assert second.poll() is None
    assert not (here.folder / PROMPTS).exists()

    (here.folder / "go").touch()
    output, _ = second.communicate()
    assert second.returncode == 0, "".join(lines) + output
    assert not driver.jobs_at_work("runs/arithmetic")


@pytest.mark.long
def test_what_two_starts_leave_is_what_one_leaves(here, tmp_path):
    """A driver is killed, its job goes on, and a second driver finishes: the prompts are those of one start."""
    process = started(here)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (here.folder / "go").touch()
    here.snakemake(PROMPTS)

    alone = Copy(tmp_path / "alone", tiny_config())
    alone.snakemake(PROMPTS)
    assert file_digest(here.folder / PROMPTS) == file_digest(alone.folder / PROMPTS)


# ---------------------------------------------------------------- locks


def holder(folder: Path) -> Any:
    """Start a process that claims a run and holds it."""
    code = "from workflow_scripts.workflow import driver; driver.claim('runs/a'); print('held', flush=True); input()"
    process: Any = subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert process.stdout.readline() == "held\n"
    return process


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(driver, "PATIENCE", 0.2)
    return tmp_path


def test_only_the_locks_of_the_dead_drivers_run_are_removed(folder):
    process = holder(folder)
    assert driver.state("runs/a") == "working"
    with pytest.raises(BadInput, match=r"another snakemake works on runs/a \(process"):
        driver.claim("runs/a")

    driver.SNAKEMAKE_LOCKS.mkdir(parents=True)
    files = {
        "0.input": "data/mine.jsonl\nruns/a/prompts/train.json",
        "0.output": "runs/a/results/r1/auto/2_0.pkl",
        "1.input": "runs/a/checkpoints/r1/checkpoint.json\nruns/b/prompts/train.json",
        "1.output": "runs/b/results/r1/auto/2_0.pkl",
    }
    for name, text in files.items():
        (driver.SNAKEMAKE_LOCKS / f"{name}.lock").write_text(text + "\n")

    process.kill()
    process.wait()
    assert driver.state("runs/a") == "ended"
    driver.claim("runs/a")
    assert sorted(path.name for path in locks()) == ["1.input.lock", "1.output.lock"]
    os.close(driver.held.pop("runs/a"))


def test_the_locks_of_a_driver_on_another_machine_stay(folder):
    """On a shared folder without locks between machines, nobody can tell from here whether that driver is alive."""
    (folder / "runs/a").mkdir(parents=True)
    (folder / "runs/a" / driver.LOCK).write_text("process 1 on another-machine\n")
    driver.SNAKEMAKE_LOCKS.mkdir(parents=True)
    (driver.SNAKEMAKE_LOCKS / "0.output.lock").write_text("runs/a/results/r1/auto/2_0.pkl\n")

    assert driver.state("runs/a") == "unknown"
    for _ in range(2):
        with pytest.raises(BadInput, match=r"process 1 on another-machine\) works on runs/a, or was killed"):
            driver.claim("runs/a")
    assert locks()

    (driver.SNAKEMAKE_LOCKS / "0.output.lock").unlink()  # snakemake --unlock
    driver.claim("runs/a")
    os.close(driver.held.pop("runs/a"))


def test_a_loaded_engine_is_no_job_that_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    processes = []
    for module in ("engines._resident", "generate"):
        words = ["-m", f"workflow_scripts.{module}", "--model", "runs/a/checkpoints/r0/model"]
        processes.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", *words]))

    try:
        wait_for(lambda: driver.jobs_at_work("runs/a"))
        assert driver.jobs_at_work("runs/a") == {processes[1].pid: "generate"}
    finally:
        for process in processes:
            process.kill()
            process.wait()
