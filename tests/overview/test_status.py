"""`status` tells what is done, running, pending or stale and why, also while a run is going on."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from tests.harness import REPOSITORY, Copy, kill, tiny_config, wait_for
from workflow_scripts.overview.estimate import schedule
from workflow_scripts.overview.jobs import Job, Survey
from workflow_scripts.overview.progress import in_log
from workflow_scripts.overview.words import duration


def status(copy: Copy, *arguments: str) -> dict:
    """Return what `status --json` prints."""
    return json.loads(copy.run("workflow_scripts.status", *arguments, "--json"))


def stages(state: dict, n: int) -> dict[str, dict]:
    """Return the stages of round n by name."""
    return {stage["stage"]: stage for stage in state["stages"] if stage["round"] == n}


def change_lr(copy: Copy, lr: float) -> None:
    config = tiny_config()
    config["train"] |= {"lr": lr}
    copy.configure(config)


# ---------------------------------------------------------------- of a finished run


def test_a_finished_run_is_done(finished):
    state = status(finished, "round1_checkpoint")

    assert {name for name, count in state["jobs"].items() if count} == {"done"}
    assert state["seconds_left"] == 0 and state["without_estimate"] == []
    assert stages(state, 1)["train"]["seconds_spent"] > 0
    assert "Everything is made" in finished.run("workflow_scripts.status", "round1_checkpoint")


def test_a_changed_setting_is_named_by_its_key(fork):
    change_lr(fork, 2e-6)

    state = status(fork, "round1_checkpoint")

    of_round = stages(state, 1)
    assert of_round["train"]["state"] == "stale"
    assert of_round["train"]["reasons"] == ["train.lr: 0.0003 → 2e-6"]
    assert of_round["generate_eval"]["reasons"] == ["follows from train"]
    assert of_round["generate auto"]["state"] == "done"
    assert state["next"] == ["train of round 1"]
    assert state["seconds_left"] > 0 and state["without_estimate"] == []


def test_changed_code_and_a_missing_round_are_named(fork):
    fork.edit(
        "workflow_scripts/tasks/math/grading.py",
        '"reward": float(is_right),',
        '"reward": float(not is_right),',
    )

    state = status(fork, "round2_checkpoint")

    assert stages(state, 1)["grade auto"]["reasons"] == ["code: workflow_scripts/tasks/math/grading.py: grade_of"]
    assert {stage["state"] for stage in stages(state, 2).values()} == {"pending"}
    assert "2       all stages" in fork.run("workflow_scripts.status", "round2_checkpoint")


def test_a_dry_run_names_changed_settings_by_their_keys(fork):
    change_lr(fork, 2e-6)

    output = fork.snakemake("-n", "round1_checkpoint")

    assert "reason: train.lr: 0.0003 → 2e-6" in output
    assert re.search(r"^train +1 +train\.lr: 0\.0003 → 2e-6$", output, re.M)
    assert "exclusive params" not in output and '"batch_size"' not in output


def test_a_wrong_target_ends_with_snakemakes_own_message(finished):
    command = [sys.executable, "-m", "workflow_scripts.status", "round1_chekpoint"]
    result = subprocess.run(command, cwd=finished.folder, capture_output=True, text=True)

    assert result.returncode == 65
    assert "did you mean 'round1_checkpoint'" in result.stderr and "Traceback" not in result.stderr


# ---------------------------------------------------------------- while a run is going on


@pytest.fixture
def held(fork):
    """Yield a run that is held in the middle of a training, with all of its processes stopped."""
    config = tiny_config()
    config["train"] |= {"lr": 1e-5, "epochs": 40}
    fork.configure(config)
    log = fork.path("logs/train/r1.log")
    log.unlink()

    process = fork.start("round1_checkpoint")
    wait_for(lambda: (progress := in_log(log)) and progress.done > 0, process)
    group = os.getpgid(process.pid)
    os.killpg(group, signal.SIGSTOP)
    yield fork, process

    if process.poll() is None:
        os.killpg(group, signal.SIGCONT)
        kill(process)


def test_a_running_stage_shows_its_progress_and_then_that_it_was_interrupted(held):
    copy, process = held
    (copy.folder / "torch.py").write_text("raise SystemExit('torch was imported')\n")

    state = status(copy)  # without a target, it is the run that was started last

    training = stages(state, 1)["train"]
    assert state["driven"] and state["driver"]["arguments"] == ["round1_checkpoint", "--profile", "local"]
    assert training["state"] == "running"
    assert 0 < training["progress"]["done"] < training["progress"]["total"]
    assert training["progress"]["unit"] == "update"
    assert training["seconds_spent"] > 0
    assert stages(state, 1)["evaluate"]["state"] == "stale"
    assert "▶ running" in copy.run("workflow_scripts.status")

    os.killpg(process.pid, signal.SIGCONT)
    kill(process)
    state = status(copy)

    assert not state["driven"]
    assert stages(state, 1)["train"]["state"] == "interrupted"
    assert stages(state, 1)["train"]["progress"]["done"] > 0
    assert "the same snakemake command goes on from here" in copy.run("workflow_scripts.status")


# ---------------------------------------------------------------- its parts


def test_status_imports_neither_torch_nor_snakemake():
    code = "import sys, workflow_scripts.status; print(sorted({'torch', 'snakemake', 'pandas'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("bar", "expected"),
    [
        ("generate auto 2_0:  45%|████▌     | 450/1008 [00:02<00:05, 401.23record/s]", (450, 1008, "record")),
        ("train:  97%|█████| 96/99 [00:07<00:00, 12.01update/s, grad_norm=0.048]", (96, 99, "update")),
        ("logp 2_0:   0%|          | 0/505 [00:00<?, ?record/s]", (0, 505, "record")),
        ("train:  3%|          | 2/99 [01:00<48:30, 30.01s/update]", (2, 99, "update")),
    ],
)
def test_the_last_bar_of_a_log_is_read(tmp_path, bar, expected):
    log = tmp_path / "a.log"
    log.write_text(f"a line\ntrain:   0%|   | 0/9 [00:00<?, ?update/s]\r{bar}\nanother 1/2 line\n")

    progress = in_log(log)

    assert progress and (progress.done, progress.total, progress.unit) == expected


def job(number: int, needs: list[int], threads: int = 1) -> Job:
    return Job("a", "a", 1, [], None, threads, 0, needs, [], [], True, False, [], None, True, 0.0)


def run_of(jobs: list[Job], cores: int, jobs_at_once: int | None = None) -> Survey:
    return Survey("r", "t", 1, {}, {}, {}, 1, cores, jobs_at_once, jobs)


def test_the_schedule_respects_inputs_and_cores():
    jobs = [job(0, []), job(1, []), job(2, []), job(3, [0, 1, 2], threads=2), job(4, [0])]
    seconds = [10.0, 20.0, 30.0, 5.0, 1.0]

    assert schedule(run_of(jobs, 1), seconds) == 66
    assert schedule(run_of(jobs, 2), seconds) == 45  # 10 and 20, then 30 beside 1, then 5
    assert schedule(run_of(jobs, 2, 64), seconds) == 35


def test_durations_are_in_words():
    assert [duration(seconds) for seconds in (0.4, 75, 600, 12000, 200_000)] == [
        "0 s",
        "75 s",
        "10 min",
        "3 h 20 min",
        "2 d 7 h",
    ]
