"""Stages end by themselves before their job's time is up, and go on where they ended."""

import json
import os
import subprocess
import sys
import time

import pytest

from tests.conftest import REPOSITORY
from tests.test_ledger import run
from tests.test_train_stage import SETTINGS, Workshop
from workflow_scripts import train
from workflow_scripts.core.deadline import STATUS, OutOfTime, deadline
from workflow_scripts.core.records import BadInput, read_json


@pytest.fixture
def time_is_up(monkeypatch):
    """So that each run makes the least headway that there is."""
    monkeypatch.setenv("JOB_DEADLINE", str(time.time() + 1))
    deadline.cache_clear()
    yield
    monkeypatch.undo()
    deadline.cache_clear()


def test_without_a_scheduler_there_is_no_deadline(monkeypatch):
    for name in ("JOB_DEADLINE", "SLURM_JOB_END_TIME", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    deadline.cache_clear()
    assert deadline() == float("inf")


def test_records_are_worked_through_batch_by_batch(tmp_path, time_is_up):
    seen = []
    for _ in range(2):
        with pytest.raises(OutOfTime, match="what is finished is in the ledger"):
            run(tmp_path, seen=seen)
    assert run(tmp_path, seen=seen) == [{"square": i**2} for i in range(10)]
    assert [len(batch) for batch in seen] == [4, 4, 2]  # each once


def test_training_is_worked_through_update_by_update(tmp_path, time_is_up):
    """Four updates in four runs have the weights of four updates in one."""
    shop = Workshop(tmp_path)
    logp = shop.logp()
    options = ("--logp", logp, "--round", 1)
    for update in range(1, 4):
        with pytest.raises(OutOfTime, match=f"update {update} of 4 is saved"):
            shop.train("piecewise", *options, epochs=2, save_steps=100)
    piecewise = shop.train("piecewise", *options, epochs=2, save_steps=100)
    os.environ.pop("JOB_DEADLINE")
    deadline.cache_clear()
    whole = shop.train("whole", *options, epochs=2, save_steps=100)
    assert piecewise["digest"] == whole["digest"] and piecewise["updates"] == 4


def test_a_node_without_squeue_has_no_deadline(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    for name in ("JOB_DEADLINE", "SLURM_JOB_END_TIME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "/nonexistent")
    deadline.cache_clear()
    assert deadline() == float("inf")
    deadline.cache_clear()


def test_two_processes_never_train_one_round(tmp_path):
    shop = Workshop(tmp_path)
    logp = shop.logp()
    held = train.locked(str(tmp_path / "run/state/r1"))
    with pytest.raises(BadInput, match=f"another process trains this round still .process {os.getpid()} on "):
        shop.train("second", "--logp", logp, "--round", 1)
    held.close()
    assert shop.train("second", "--logp", logp, "--round", 1)["updates"] == 2


def test_what_was_trained_is_recognised_though_its_end_was_not_recorded(tmp_path, capsys):
    shop = Workshop(tmp_path)
    first = shop.train("one", objective="sft")
    (tmp_path / "one/checkpoint.json").unlink()
    assert shop.train("one", objective="sft") == first and "is trained already" in capsys.readouterr().err
    assert shop.train("one", objective="sft", lr=2e-3)["digest"] != first["digest"]


def test_all_ranks_end_together_with_the_documented_status(tmp_path):
    shop = Workshop(tmp_path)
    logp, output = shop.logp(), tmp_path / "out/checkpoint.json"
    command = [
        sys.executable, "-m", "workflow_scripts.core.launch", "--processes", "2", "--", "workflow_scripts.train",
        "--data", shop.data, "--model", shop.checkpoint, "--logp", logp, "--round", "1", "--state", tmp_path / "state",
        "--settings", json.dumps(SETTINGS), "--output", output,
    ]  # fmt: skip
    for deadline_in, status in ((1, STATUS), (3600, 0)):
        environment = os.environ | {"JOB_DEADLINE": str(time.time() + deadline_in)}
        done = subprocess.run(list(map(str, command)), cwd=REPOSITORY, env=environment, capture_output=True, text=True)
        assert done.returncode == status, done.stderr[-3000:]
    assert "going on from update 1 of 2" in done.stderr and read_json(output)["updates"] == 2
