"""Training that ends before its time is up, is killed, or is started twice, gives the model of an undisturbed run."""

import json
import os
import subprocess
import sys
import time

import pytest

from tests.harness import REPOSITORY
from tests.workshop import SETTINGS, Workshop
from workflow_scripts import train
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json
from workflow_scripts.core.running.deadline import OUT_OF_TIME_STATUS, OutOfTime, deadline


@pytest.fixture
def workshop(tmp_path):
    return Workshop(tmp_path)


def test_training_is_worked_through_update_by_update(workshop, time_is_up):
    """Four updates in four runs have the weights of four updates in one run."""
    options = ("--logp", workshop.logp(), "--round", 1)
    settings = {"epochs": 2, "save_steps": 100}

    for update in range(1, 4):
        with pytest.raises(OutOfTime, match=f"update {update} of 4 is saved"):
            workshop.train("piecewise", *options, **settings)
    piecewise = workshop.train("piecewise", *options, **settings)

    os.environ.pop("JOB_DEADLINE")
    deadline.cache_clear()
    whole = workshop.train("whole", *options, **settings)

    assert piecewise["digest"] == whole["digest"]
    assert piecewise["updates"] == 4


def test_two_processes_never_train_one_round(workshop):
    options = ("--logp", workshop.logp(), "--round", 1)

    lock = train.lock_states(str(workshop.folder / "run/state/r1"))
    with pytest.raises(BadInput, match=rf"another process is training this round \(process {os.getpid()} on "):
        workshop.train("second", *options)

    lock.close()
    assert workshop.train("second", *options)["updates"] == 2


def test_a_finished_training_is_recognised_though_its_end_was_not_recorded(workshop, capsys):
    first = workshop.train("one", objective="sft")
    (workshop.folder / "one/checkpoint.json").unlink()

    assert workshop.train("one", objective="sft") == first
    assert "is trained already" in capsys.readouterr().err
    assert workshop.train("one", objective="sft", lr=2e-3)["digest"] != first["digest"]


@pytest.mark.long
def test_all_ranks_end_together_with_the_documented_status(workshop):
    output = workshop.folder / "out/checkpoint.json"
    command = [sys.executable, "-m", "workflow_scripts.core.running.launch", "--processes", "2", "--"]
    command += ["workflow_scripts.train", "--data", workshop.data, "--model", workshop.checkpoint]
    command += ["--logp", workshop.logp(), "--round", "1", "--state", workshop.folder / "state"]
    command += ["--settings", json.dumps(SETTINGS), "--output", output]

    for seconds, status in ((1, OUT_OF_TIME_STATUS), (3600, 0)):
        environment = os.environ | {"JOB_DEADLINE": str(time.time() + seconds)}
        done = subprocess.run(list(map(str, command)), cwd=REPOSITORY, env=environment, capture_output=True, text=True)
        assert done.returncode == status, done.stderr[-3000:]

    assert "going on from update 1 of 2" in done.stderr
    assert read_json(output)["updates"] == 2
