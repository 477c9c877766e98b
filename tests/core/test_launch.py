"""Test where stages run, on pretended GPUs: LOCAL_GPUS stands in for nvidia-smi, locks and processes are real."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.harness import REPOSITORY

# Each job marks its GPUs as busy, and fails if one already is.
JOB = """
import os, pathlib, time
gpus = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
for gpu in gpus:
    pathlib.Path(f"busy{gpu}").mkdir()
time.sleep(0.3)
for gpu in gpus:
    pathlib.Path(f"busy{gpu}").rmdir()
print(*gpus)
"""
SHOW = "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES'))"


@pytest.fixture
def start(tmp_path):
    """Return a function that starts a program by the launcher, with so many GPUs."""
    kept = {name: value for name, value in os.environ.items() if name not in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID")}
    kept |= {"GPU_LOCKS": str(tmp_path / "locks"), "LOCAL_GPUS": "0,1,2"}
    kept |= {"PYTHONPATH": f"{REPOSITORY}:{tmp_path}"}

    def start(count: int, code: str = JOB, options=(), **changes) -> subprocess.Popen:
        module = f"job{len(list(tmp_path.glob('job*.py')))}"
        (tmp_path / f"{module}.py").write_text(code)
        command = ["workflow_scripts.core.running.launch", "--gpus", str(count), *options, "--", module]
        environment = {name: value for name, value in (kept | changes).items() if value is not None}
        return subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=tmp_path,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    return start


def output(process: subprocess.Popen) -> str:
    """Return what a process prints until it ends."""
    return process.communicate(timeout=60)[0]


def errors(process: subprocess.Popen) -> str:
    """Return what a process prints as errors until it ends."""
    return process.communicate(timeout=60)[1]


# ---------------------------------------------------------------- which GPUs a job sees


def test_jobs_never_share_a_gpu(start):
    jobs = [(count, start(count)) for count in (1, 2, 1, 3, 1, 1, 2)]

    for count, job in jobs:
        printed, complaints = job.communicate(timeout=60)
        assert job.returncode == 0, complaints
        assert len(set(printed.split())) == count
        assert set(printed.split()) <= {"0", "1", "2"}


def test_a_killed_job_frees_its_gpus(start):
    first = start(3, "import time; print('here', flush=True); time.sleep(600)")
    assert first.stdout.readline() == "here\n"

    second = start(1)
    time.sleep(0.7)
    assert second.poll() is None

    first.send_signal(signal.SIGKILL)
    assert output(second).split()
    first.wait()


def test_of_gpus_that_are_given_out_a_job_sees_what_it_asks_for(start):
    assert output(start(1, SHOW, LOCAL_GPUS=None, CUDA_VISIBLE_DEVICES="7")) == "7\n"
    assert output(start(1, SHOW, LOCAL_GPUS=None, CUDA_VISIBLE_DEVICES="5,GPU-ab/1")) == "5\n"

    in_slurm = {"SLURM_JOB_ID": "1", "CUDA_VISIBLE_DEVICES": "0,1"}
    assert output(start(2, SHOW, **in_slurm)) == "0,1\n"  # LOCAL_GPUS is the login node's
    assert output(start(2, SHOW, SLURM_JOB_ID="1")) == "None\n"

    refused = errors(start(2, SHOW, LOCAL_GPUS=None, CUDA_VISIBLE_DEVICES="7"))
    assert "asks for 2 GPUs, but there are 1" in refused


def test_odd_lists_of_gpus(start):
    assert output(start(2, SHOW, LOCAL_GPUS=" 3, 3,all,")) == "3,all\n"
    assert output(start(1, SHOW, LOCAL_GPUS="NoDevFiles")) == "\n"


def test_a_job_that_asks_for_no_gpu_sees_none(start):
    assert output(start(0, SHOW)) == "\n"
    assert output(start(0, SHOW, CUDA_VISIBLE_DEVICES="7")) == "\n"


def test_without_gpus_jobs_run_on_the_cpu(start):
    assert output(start(2, SHOW, LOCAL_GPUS="")) == "\n"


def test_more_gpus_than_there_are_is_an_error(start):
    assert "asks for 4 GPUs, but there are 3: lower `gpus`" in errors(start(4))


def test_several_nodes_need_slurm(start):
    assert "`nodes: 2` needs a Slurm job" in errors(start(0, SHOW, ["--nodes", "2"]))


# ---------------------------------------------------------------- several processes


def test_several_processes_are_ranks_and_one_that_fails_gives_its_status(start):
    shown = "{RANK} {WORLD_SIZE} {CUDA_VISIBLE_DEVICES}\\n"  # in one write, which no other rank's can cut in two
    ranks = f"import os, sys; sys.stdout.write('{shown}'.format(**os.environ))"
    printed, complaints = start(2, ranks, ["--processes", "2"]).communicate(timeout=120)
    assert sorted(printed.split("\n")[:-1]) == ["0 2 0,1", "1 2 0,1"], complaints

    job = start(0, "import os, sys; sys.exit(75 if os.environ['RANK'] == '1' else 0)", ["--processes", "2"])
    job.communicate(timeout=120)
    assert job.returncode == 75


def test_a_process_per_gpu(start):
    shown = "import os, sys; sys.stdout.write('{} '.format(os.environ.get('WORLD_SIZE', 1)))"
    printed, complaints = start(2, shown, ["--process-per-gpu"]).communicate(timeout=120)
    assert printed.split() == ["2", "2"], complaints
    assert output(start(1, shown, ["--process-per-gpu"])) == "1 "
    assert output(start(2, shown, ["--process-per-gpu"], LOCAL_GPUS="")) == "1 "  # one process on the CPU


RANK = """
import os, time
from workflow_scripts.core.running.cli import run

def main():
    print(os.getpid(), file=open("pid" + os.environ["RANK"], "w"), flush=True)
    time.sleep(600)

run(main)
"""


def test_ranks_die_with_their_launcher(start, tmp_path):
    job = start(2, RANK, ["--processes", "2"])
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


# ---------------------------------------------------------------- replicas

REPLICAS = """
import os

from workflow_scripts.core.running.cli import run
from workflow_scripts.core.running.ledger import Ledger, map_records
from workflow_scripts.core.running.replicas import Replicas

def compute(batch):
    with open(f"done{os.environ.get('CUDA_VISIBLE_DEVICES')}", "a") as file:
        print(*(job["uid"] for job in batch), file=file)
    if os.path.exists("fail") and os.environ["CUDA_VISIBLE_DEVICES"] == "1":
        raise SystemExit(3)
    return [job["uid"] * 2 for job in batch]

def main():
    jobs = [{"uid": i} for i in range(10)]
    batches = [range(i, i + 2) for i in range(0, 10, 2)]
    replicas = Replicas(1)
    print(*map_records(jobs, lambda job: job, compute, Ledger("ledger", "1_0"), batches, "test", replicas))

run(main)
"""
DOUBLED = [str(2 * i) for i in range(10)]


def test_replicas_share_a_jobs_batches_by_the_ledger(start, tmp_path):
    printed, complaints = start(3, REPLICAS).communicate(timeout=60)

    assert printed.split() == DOUBLED, complaints
    done = {gpu: (tmp_path / f"done{gpu}").read_text().split() for gpu in "012"}
    assert done == {"0": ["0", "1", "6", "7"], "1": ["2", "3", "8", "9"], "2": ["4", "5"]}


def test_a_replica_that_fails_is_named_and_finished_batches_are_kept(start, tmp_path):
    (tmp_path / "fail").touch()
    job = start(2, REPLICAS)
    assert "replica 1 of 2 failed" in errors(job)
    assert job.returncode

    (tmp_path / "fail").unlink()
    assert output(start(2, REPLICAS)).split() == DOUBLED
    assert (tmp_path / "done0").read_text().split() == ["0", "1", "4", "5", "8", "9"]  # each of them once
