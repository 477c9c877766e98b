"""Where stages run, with pretend devices: LOCAL_GPUS stands in for nvidia-smi, locks and processes are real."""

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
    kept |= {"GPU_LOCKS": str(tmp_path / "locks"), "LOCAL_GPUS": "0,1,2"}
    kept |= {"PYTHONPATH": f"{REPOSITORY}:{tmp_path}"}

    def start(count: int, code: str = JOB, options=(), **changes) -> subprocess.Popen:
        module = f"job{len(list(tmp_path.glob('job*.py')))}"
        (tmp_path / f"{module}.py").write_text(code)
        command = ["workflow_scripts.core.launch", "--gpus", str(count), *options, "--", module]
        environment = {name: value for name, value in (kept | changes).items() if value is not None}
        return subprocess.Popen(
            [sys.executable, "-m", *command], cwd=tmp_path, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

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


SHOW = "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES'))"


def test_of_devices_that_are_given_out_a_job_sees_what_it_asks_for(start):
    assert start(1, SHOW, LOCAL_GPUS=None, CUDA_VISIBLE_DEVICES="7").communicate()[0] == "7\n"
    assert start(1, SHOW, LOCAL_GPUS=None, CUDA_VISIBLE_DEVICES="5,GPU-ab/1").communicate()[0] == "5\n"
    slurms = {"SLURM_JOB_ID": "1", "CUDA_VISIBLE_DEVICES": "0,1"}
    assert start(2, SHOW, **slurms).communicate()[0] == "0,1\n"  # LOCAL_GPUS is the login node's
    assert start(2, SHOW, SLURM_JOB_ID="1").communicate()[0] == "None\n"
    assert "asks for 2 GPUs, there are 1" in start(2, SHOW, LOCAL_GPUS=None, CUDA_VISIBLE_DEVICES="7").communicate()[1]


def test_odd_lists_of_devices(start):
    assert start(2, SHOW, LOCAL_GPUS=" 3, 3,all,").communicate()[0] == "3,all\n"
    assert start(1, SHOW, LOCAL_GPUS="NoDevFiles").communicate()[0] == "\n"


def test_a_job_that_asks_for_no_gpu_sees_none(start):
    assert start(0, SHOW).communicate()[0] == "\n"
    assert start(0, SHOW, CUDA_VISIBLE_DEVICES="7").communicate()[0] == "\n"


def test_without_gpus_jobs_run_on_the_cpu(start):
    assert start(2, SHOW, LOCAL_GPUS="").communicate()[0] == "\n"


def test_more_than_there_are_is_an_error(start):
    assert "asks for 4 GPUs, there are 3: lower `gpus`" in start(4).communicate()[1]


def test_several_processes_are_ranks_and_one_that_fails_gives_its_status(start):
    shown = "{RANK} {WORLD_SIZE} {CUDA_VISIBLE_DEVICES}\\n"  # in one write, which no other rank's can cut in two
    ranks = f"import os, sys; sys.stdout.write('{shown}'.format(**os.environ))"
    output, errors = start(2, ranks, ["--processes", "2"]).communicate()
    assert sorted(output.split("\n")[:-1]) == ["0 2 0,1", "1 2 0,1"], errors
    job = start(0, "import os, sys; sys.exit(75 if os.environ['RANK'] == '1' else 0)", ["--processes", "2"])
    job.communicate()
    assert job.returncode == 75


def test_ranks_die_with_their_launcher(start, tmp_path):
    ranks = "import os, time\nfrom workflow_scripts.core.cli import run\n"
    ranks += "def main():\n    print(os.getpid(), file=open('pid' + os.environ['RANK'], 'w'), flush=True)\n"
    job = start(2, ranks + "    time.sleep(600)\nrun(main)\n", ["--processes", "2"])
    files = [tmp_path / "pid0", tmp_path / "pid1"]
    while not all(file.exists() and file.read_text() for file in files):
        time.sleep(0.1)
        assert job.poll() is None, job.communicate()
    job.send_signal(signal.SIGKILL)
    job.wait()
    end = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{file.read_text().strip()}") for file in files):
        assert time.monotonic() < end, "ranks live on"
        time.sleep(0.1)


def test_a_python_that_is_not_there_is_named(start):
    assert "cannot run /no/python: No such file" in start(0, SHOW, ["--python", "/no/python"]).communicate()[1]


def test_several_nodes_need_slurm(start):
    assert "`nodes: 2` needs a Slurm job" in start(0, SHOW, ["--nodes", "2"]).communicate()[1]


SHARED = """
import pathlib, sys, time
from workflow_scripts.core.cli import run
from workflow_scripts.core.copies import Copies
from workflow_scripts.core.ledger import Ledger, map_records
import os

def compute(batch):
    with open(f"done{os.environ.get('CUDA_VISIBLE_DEVICES')}", "a") as file:
        print(*(job["uid"] for job in batch), file=file)
    if os.path.exists("fail") and os.environ["CUDA_VISIBLE_DEVICES"] == "1":
        raise SystemExit(3)
    return [job["uid"] * 2 for job in batch]

def main():
    jobs = [{"uid": i} for i in range(10)]
    batches = [range(i, i + 2) for i in range(0, 10, 2)]
    copies = Copies(1)
    print(*map_records(jobs, lambda job: job, compute, Ledger("ledger", "1_0"), batches, "test", copies))

run(main)
"""


def test_copies_share_a_jobs_batches_by_the_ledger(start, tmp_path):
    output, errors = start(3, SHARED).communicate()
    assert output.split() == [str(2 * i) for i in range(10)], errors
    done = {gpu: (tmp_path / f"done{gpu}").read_text().split() for gpu in "012"}
    assert done == {"0": ["0", "1", "6", "7"], "1": ["2", "3", "8", "9"], "2": ["4", "5"]}


def test_a_copy_that_fails_is_named_and_what_was_done_is_kept(start, tmp_path):
    (tmp_path / "fail").touch()
    job = start(2, SHARED)
    assert "copy 1 of 2 failed" in job.communicate()[1] and job.returncode
    (tmp_path / "fail").unlink()
    again = start(2, SHARED)
    assert again.communicate()[0].split() == [str(2 * i) for i in range(10)]
    assert (tmp_path / "done0").read_text().split() == ["0", "1", "4", "5", "8", "9"]  # each of them once
