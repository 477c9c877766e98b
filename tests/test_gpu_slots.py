"""GPU slots with pretend devices: LOCAL_GPUS stands in for nvidia-smi, the locks are real."""

import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import REPOSITORY

# Each job marks its devices as busy, and complains if one already is.
JOB = """
import os, pathlib, time
devices = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
for device in devices:
    pathlib.Path(f"busy{device}").mkdir()
time.sleep(0.3)
for device in devices:
    pathlib.Path(f"busy{device}").rmdir()
print(*devices)
"""


@pytest.fixture
def start(tmp_path):
    kept = {name: value for name, value in os.environ.items() if name not in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID")}
    kept |= {"PYTHONPATH": str(REPOSITORY), "GPU_LOCKS": str(tmp_path / "locks"), "LOCAL_GPUS": "0,1,2"}

    def start(count: int, code: str = JOB, **changes) -> subprocess.Popen:
        command = [
            sys.executable,
            "-m",
            "workflow_scripts.core.gpu_slots",
            str(count),
            "--",
            sys.executable,
            "-c",
            code,
        ]
        return subprocess.Popen(
            command, cwd=tmp_path, env=kept | changes, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    return start


def test_jobs_never_share_a_device(start):
    jobs = [(count, start(count)) for count in (1, 2, 1, 3, 1, 1, 2)]
    for count, job in jobs:
        output, errors = job.communicate(timeout=60)
        assert job.returncode == 0, errors
        assert len(set(output.split())) == count and set(output.split()) <= {"0", "1", "2"}


def test_a_killed_job_frees_its_device(start, tmp_path):
    first = start(3, "import time; print('here', flush=True); time.sleep(600)")
    assert first.stdout.readline() == "here\n"
    second = start(1)
    time.sleep(0.7)
    assert second.poll() is None
    first.send_signal(signal.SIGKILL)
    assert second.communicate(timeout=30)[0].split()
    first.wait()


def test_devices_that_are_given_out_already_are_left_alone(start):
    show = "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES'))"
    assert start(2, show, CUDA_VISIBLE_DEVICES="7").communicate()[0] == "7\n"
    assert start(2, show, SLURM_JOB_ID="1").communicate()[0] == "None\n"
    assert start(0, show).communicate()[0] == "None\n"


def test_more_than_there_are_is_an_error(start):
    assert "asks for 4 GPUs, this machine has 3: lower `gpus`" in start(4).communicate()[1]
