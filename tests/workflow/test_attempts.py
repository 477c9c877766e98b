"""A job that fails leaves the finished outputs of before in place, and is tried again only if that may help."""

import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.harness import NOTHING_TO_DO, Copy, kill, tiny_config, wait_for

PROMPTS = "runs/arithmetic/prompts/train.parquet"
SEED = ("--config", "seed=1")  # makes the prompts pending
CLI = "workflow_scripts/core/running/cli.py"  # no code digest covers it
START = "    try:\n        sys.exit(main() or 0)\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Copy:
    """Return a copy with frozen prompts, which a job made."""
    copy = Copy(tmp_path_factory.mktemp("made") / "copy", tiny_config())
    copy.snakemake(PROMPTS)
    return copy


@pytest.fixture
def frozen(made, tmp_path) -> Copy:
    shutil.copytree(made.folder, tmp_path / "copy", symlinks=True)
    return Copy.at(tmp_path / "copy")


def files(copy: Copy) -> dict[str, tuple[bytes, int]]:
    """Return bytes and time of each file that the job makes."""
    made = [*copy.path("prompts").glob("*"), *copy.path("prompts/shards").glob("*/*")]
    paths = [path for path in made if path.suffix in (".parquet", ".json", ".txt") and path.name[0] != "."]
    return {str(path.relative_to(copy.folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


def break_stages(copy: Copy, how: str) -> None:
    """Let each stage do something at its start, in place of its work."""
    copy.edit(CLI, START, f"    {how}\n{START}")


def mend_stages(copy: Copy, how: str) -> None:
    copy.edit(CLI, f"    {how}\n{START}", START)


def stage_process(copy: Copy) -> int | None:
    """Return the process of the stage that runs in a copy."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_text()
            if os.readlink(process / "cwd") == str(copy.folder) and "-m\0workflow_scripts.freeze_prompts" in command:
                return int(process.name)
        except OSError:
            continue
    return None


def kill_group(copy: Copy) -> None:
    """Kill the stage of a copy and wait until it is gone."""
    if pid := stage_process(copy):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: stage_process(copy) is None)


# ---------------------------------------------------------------- nothing is lost


def test_a_failed_job_leaves_what_was_there(frozen):
    before = files(frozen)
    how = "os.kill(os.getpid(), 9)"
    break_stages(frozen, how)
    output = frozen.snakemake(PROMPTS, *SEED, fails=True)

    assert "The earlier, finished outputs are back" in output
    assert files(frozen) == before

    mend_stages(frozen, how)
    assert NOTHING_TO_DO in frozen.snakemake("-n", PROMPTS)  # their parameters are those of before
    frozen.snakemake(PROMPTS, *SEED)
    assert files(frozen) != before
    assert not list(frozen.path("state/kept").glob("*"))


def test_a_job_whose_program_is_missing_leaves_what_was_there(frozen):
    before = files(frozen)
    frozen.edit("workflow_scripts/workflow/commands.py", 'else "python -m"', 'else "no-such-python -m"')
    frozen.snakemake(PROMPTS, *SEED, fails=True)

    assert files(frozen) == before


def test_after_a_killed_driver_the_next_start_brings_back_what_was_there(frozen):
    before = files(frozen)
    how = "__import__('time').sleep(600)"
    break_stages(frozen, how)
    process = frozen.start(PROMPTS, *SEED)
    wait_for(lambda: stage_process(frozen), process)
    kill(process)
    kill_group(frozen)
    assert not files(frozen)

    mend_stages(frozen, how)
    assert NOTHING_TO_DO in frozen.snakemake("-n", PROMPTS)
    assert files(frozen) == before


@pytest.mark.long
def test_nothing_is_brought_back_beside_a_job_that_still_works(frozen):
    before = files(frozen)
    how = "__import__('subprocess').run('until [ -e go ]; do sleep 0.1; done', shell=True)"
    break_stages(frozen, how)
    process = frozen.start(PROMPTS, *SEED)
    wait_for(lambda: stage_process(frozen), process)
    os.kill(process.pid, signal.SIGKILL)  # the driver alone
    process.wait()
    frozen.snakemake("-n", PROMPTS)
    assert not files(frozen)

    (frozen.folder / "go").touch()
    wait_for(lambda: stage_process(frozen) is None)
    new = files(frozen)
    assert new.keys() == before.keys()
    assert new != before
    mend_stages(frozen, how)
    frozen.snakemake(PROMPTS, *SEED)  # recorded now; the new outputs were not replaced by the old ones
    assert {name: data for name, (data, _) in files(frozen).items()} == {name: data for name, (data, _) in new.items()}


def test_a_first_attempt_leaves_nothing_behind(tmp_path):
    copy = Copy(tmp_path / "copy", tiny_config())
    break_stages(copy, "__import__('pathlib').Path('runs/arithmetic/prompts/train.parquet').touch(); sys.exit(99)")
    copy.snakemake(PROMPTS, fails=True)
    assert not files(copy)


# ---------------------------------------------------------------- further attempts


@pytest.mark.parametrize(("how", "attempts"), [("raise BadInput('x')", 1), ("os.kill(os.getpid(), 9)", 3)])
def test_only_what_another_attempt_may_mend_is_tried_again(frozen, how, attempts):
    frozen.edit(CLI, START, f"    try:\n        open('attempts', 'a').write('x')\n        {how}\n        sys.exit(0)\n")
    output = frozen.snakemake("--retries", "2", PROMPTS, *SEED, fails=True)

    assert len((frozen.folder / "attempts").read_text()) == attempts
    assert ("is not tried again" in output) == (attempts == 1)
