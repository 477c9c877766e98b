"""The workflow on a real Slurm with fake GPUs: `make test-slurm` starts one (tests/slurm.sh) and names its tests.

What was lost in each fault is printed at the end, in seconds of work.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from conftest import REPOSITORY, Copy, tiny_config
from transformers import AutoModelForCausalLM

from workflow_scripts.core.records import read_json

pytestmark = pytest.mark.skipif(not os.environ.get("ROUNDHOUSE_SLURM"), reason="make test-slurm starts a Slurm")

# Each Python that starts below the copy's folder says where it runs and which GPUs it sees.
PROBE = """
import os, sys
if "-m" in sys.orig_argv:
    with open(os.path.join(os.path.dirname(__file__), "starts.txt"), "a") as file:
        module = sys.orig_argv[sys.orig_argv.index("-m") + 1].rsplit(".", 1)[-1]
        gpus, job = os.environ.get("CUDA_VISIBLE_DEVICES", ""), os.environ.get("SLURM_JOB_ID", "")
        file.write(f"{module}|{gpus}|{job}|{os.environ.get('SLURMD_NODENAME', '')}\\n")
"""
CHECKPOINT = "runs/arithmetic/checkpoints/r1/checkpoint.json"
QUICK = ("--slurm-init-seconds-before-status-checks", "11", "--latency-wait", "10")
LOST: dict[str, float] = {}


class OnSlurm(Copy):
    """A copy of the workflow that submits to Slurm, as the profile has it but for the patience."""

    def start(self, *arguments: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "snakemake", "--profile", "slurm", *QUICK, *arguments]
        return subprocess.Popen(
            command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True, env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )  # fmt: skip

    def starts(self, module: str) -> list[list[str]]:
        """(GPUs, job, node) of each start of a stage."""
        lines = [line.split("|") for line in (self.folder / "starts.txt").read_text().splitlines()]
        return [rest for name, *rest in lines if name == module]

    def digest(self) -> str:
        return read_json(self.folder / CHECKPOINT)["digest"]


def copied(source: Copy, folder: Path) -> OnSlurm:
    """A copy of all that there is, to be run on Slurm."""
    shutil.copytree(source.folder, folder, symlinks=True)
    copy = OnSlurm.at(folder)
    (folder / "sitecustomize.py").write_text(PROBE)
    (folder / "starts.txt").unlink(missing_ok=True)
    return copy


@pytest.fixture(scope="module")
def begun(tmp_path_factory, request) -> Copy:
    """Round 0 on this machine, of an experiment whose round 1 trains for a while: for the time limit, a minute."""
    updates = 6000 if "or not slow" in request.config.option.markexpr else 2000
    config = tiny_config()
    config["shards"] = 1
    config["generate"]["trigger"] = None
    config["train"] |= {"epochs": updates, "save_steps": 10}
    copy = Copy(tmp_path_factory.mktemp("begun") / "here", config)
    copy.snakemake("runs/arithmetic/checkpoints/r0/checkpoint.json", "runs/arithmetic/prompts/train.parquet")
    return copy


@pytest.fixture(scope="module")
def trained(begun, tmp_path_factory) -> Copy:
    """The same after round 1 without disturbance."""
    folder = tmp_path_factory.mktemp("trained") / "here"
    shutil.copytree(begun.folder, folder, symlinks=True)
    copy = Copy.at(folder)
    copy.snakemake(CHECKPOINT)
    return copy


@pytest.fixture
def untrained(trained, tmp_path) -> OnSlurm:
    """The same before its training."""
    copy = copied(trained, tmp_path / "slurm")
    shutil.rmtree(copy.path("checkpoints/r1"))
    return copy


def queue(form: str, *options: str) -> list[str]:
    return subprocess.run(
        ["squeue", "-h", "-o", form, *options], capture_output=True, text=True, check=True
    ).stdout.split()


def wait_for(condition, process=None, seconds=600):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert process is None or process.poll() is None, process.communicate()[0][-4000:]
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.2)
    return found


def marks(copy: Copy) -> list[Path]:
    return sorted(copy.path("state/r1").glob("*/checkpoint-*/complete"), key=lambda path: path.stat().st_mtime)


def in_training(copy: OnSlurm) -> tuple[subprocess.Popen, str]:
    """The driver and the id of its training job, some seconds after that saved a state."""
    process = copy.start(CHECKPOINT)
    wait_for(lambda: len(marks(copy)) >= 2, process)
    time.sleep(1)
    return process, queue("%A", "-t", "R")[0]


def ends_well(copy: OnSlurm, process: subprocess.Popen, trained: Copy, fault: str, struck: float, saved: float) -> str:
    """The run ends complete and right: nothing that was finished is done again, nor what training had saved."""
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output[-4000:]
    assert copy.digest() == read_json(trained.folder / CHECKPOINT)["digest"]
    assert "train: going on from update" in copy.path("logs/train/r1.log").read_text()
    starts = Counter(line.split("|")[0] for line in (copy.folder / "starts.txt").read_text().splitlines())
    assert all(count == 1 for stage, count in starts.items() if stage not in ("launch", "train")), starts
    LOST[fault] = struck - saved
    return output


def strike(copy: OnSlurm, trained: Copy, fault: str, blow) -> str:
    """Do `blow(job)` in the middle of the training, and see the run end well by itself."""
    process, job = in_training(copy)
    saved, struck = marks(copy)[-1].stat().st_mtime, time.time()
    blow(job)
    return ends_well(copy, process, trained, fault, struck, saved)


@pytest.fixture(scope="module", autouse=True)
def table():
    yield
    print("\nfault                          seconds of work lost")
    for fault, seconds in LOST.items():
        print(f"{fault:<30} {seconds:.1f}")


# ---------------------------------------------------------------- the literal command


@pytest.mark.slow
def test_a_round_on_slurm_equals_one_on_this_machine(tmp_path, finished):
    """From nothing to round 1; GPU stages see one GPU each, and all others none."""
    copy = OnSlurm(tmp_path / "slurm", tiny_config())
    (copy.folder / "sitecustomize.py").write_text(PROBE)
    copy.snakemake("round1_checkpoint")
    assert copy.digest() == read_json(finished.folder / CHECKPOINT)["digest"]
    for stage in ("generate", "logp", "train"):
        assert copy.starts(stage) and all(gpus in ("0", "1") and job for gpus, job, _ in copy.starts(stage))
    for stage in ("grade", "construct_meta", "construct_data", "evaluate", "init_model", "freeze_prompts"):
        assert copy.starts(stage) and {gpus for gpus, *_ in copy.starts(stage)} <= {"", "NoDevFiles"}
        assert all(job for _, job, _ in copy.starts(stage))


@pytest.mark.slow
def test_the_default_experiment_on_slurm_equals_the_demo(tmp_path):
    """`make demo` made runs/arithmetic; the same three rounds by sbatch have the same weights."""
    copy = OnSlurm(tmp_path / "slurm")
    copy.snakemake("round3_checkpoint")
    for n in range(4):
        name = f"runs/arithmetic/checkpoints/r{n}/checkpoint.json"
        assert read_json(copy.folder / name)["digest"] == read_json(REPOSITORY / name)["digest"], f"round {n}"


@pytest.mark.slow
def test_two_nodes_train_as_one_process(finished, tmp_path):
    """2 × 2 ranks over gloo, started by one srun: equal figures at every update, and a checkpoint that loads."""
    copy = copied(finished, tmp_path / "slurm")
    config = tiny_config()
    config["train"] |= {"nodes": 2, "processes": 2}
    copy.configure(config)
    copy.snakemake(CHECKPOINT)
    assert sorted((gpus, node) for gpus, _, node in copy.starts("train")) == [("0,1", "n1")] * 2 + [("0,1", "n2")] * 2
    one, four = (json.loads(run.path("checkpoints/r1/history.json").read_text()) for run in (finished, copy))
    assert len(one) == len(four) > 2
    for a, b in zip(one, four):
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-4)
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4, abs=1e-6)
    AutoModelForCausalLM.from_pretrained(copy.path("checkpoints/r1/model"))


# ---------------------------------------------------------------- faults


def test_a_round_with_a_cancelled_job_and_a_killed_driver(begun, tmp_path):
    """Round 1 by sbatch. Its training job is cancelled in the middle, and goes on in the next attempt. Then the driver
    is killed, and the job goes on: a restart refuses to submit beside it, says what to type, and finds it finished
    later. The weights are those of a round that runs on this machine meanwhile."""
    here = copied(begun, tmp_path / "here")
    command = [sys.executable, "-m", "snakemake", "--profile", "local", CHECKPOINT]
    undisturbed = subprocess.Popen(command, cwd=here.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    copy = copied(begun, tmp_path / "slurm")
    process, cancelled = in_training(copy)
    LOST["scancel"] = time.time() - marks(copy)[-1].stat().st_mtime
    subprocess.run(["scancel", cancelled], check=True)
    job = wait_for(lambda: [one for one in queue("%A", "-t", "R") if one != cancelled], process)[0]
    log = copy.path("logs/train/r1.log")
    wait_for(lambda: "train: going on from update" in log.read_text(), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    LOST["kill -9 of the driver, awaited"] = 0.0
    assert "--unlock" in copy.snakemake(CHECKPOINT, fails=True)
    copy.snakemake("--unlock")
    refused = copy.snakemake(CHECKPOINT, fails=True)
    name = queue("%j", "-j", job)[0]
    assert f"{job} RUNNING rule_train" in refused and f"scancel --name={name}" in refused
    wait_for(lambda: not queue("%A"))
    copy.snakemake(CHECKPOINT)  # recorded now, and not trained again
    assert "is trained already" in log.read_text()
    assert undisturbed.wait() == 0 and copy.digest() == here.digest()
    assert "Nothing to be done" in copy.snakemake("-n", CHECKPOINT)
    starts = Counter(line.split("|")[0] for line in (copy.folder / "starts.txt").read_text().splitlines())
    assert all(count == 1 for stage, count in starts.items() if stage not in ("launch", "train")), starts
    for stage in ("generate", "logp", "train"):
        assert copy.starts(stage) and all(gpus in ("0", "1") for gpus, *_ in copy.starts(stage))


@pytest.mark.slow
def test_a_killed_driver_whose_jobs_are_ended(untrained, trained):
    """The other reaction: the line that the refusal says, and the same command again."""
    process, _ = in_training(untrained)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    untrained.snakemake("--unlock")
    refused = untrained.snakemake(CHECKPOINT, fails=True)
    subprocess.run(refused.split("end them with\n")[1].splitlines()[0].split(), check=True)
    wait_for(lambda: not queue("%A"))
    saved, struck = marks(untrained)[-1].stat().st_mtime, time.time()
    ends_well(untrained, untrained.start(CHECKPOINT), trained, "kill -9 of the driver, ended", struck, saved)


@pytest.mark.slow
def test_a_job_at_its_time_limit(untrained, trained):
    """A minute is less than the training needs: it saves, ends with status 75, and goes on in the next attempt."""
    limit = "train:runtime=1 if attempt == 1 else 30"
    process = untrained.start("--set-resources", limit, "--", CHECKPOINT)
    log = untrained.path("logs/train/r1.log")
    wait_for(lambda: log.exists() and "exit status 75" in log.read_text(), process)
    saved, struck = marks(untrained)[-1].stat().st_mtime, time.time()
    ends_well(untrained, process, trained, "time limit", max(0.0, struck - saved - 1), 0.0)


@pytest.mark.slow
def test_a_lost_node(untrained, trained):
    """Slurm requeues the job elsewhere when a node's daemon and the job on it are gone."""

    def blow(job):
        node = queue("%N", "-j", job)[0]
        daemon = int(Path(f"/var/tmp/roundhouse-slurm/run/slurmd-{node}.pid").read_text())
        os.kill(daemon, signal.SIGKILL)
        for process in Path("/proc").glob("[0-9]*"):
            try:
                of_step = f"[{job}." in (process / "cmdline").read_text()
                of_job = f"SLURM_JOB_ID={job}\0" in (process / "environ").read_text(errors="replace")
            except OSError:
                continue
            if of_step or of_job:
                os.kill(int(process.name), signal.SIGKILL)

    try:
        strike(untrained, trained, "lost node", blow)
    finally:
        subprocess.run([REPOSITORY / "tests/slurm.sh"], check=True)


@pytest.mark.slow
def test_a_preempted_job(untrained, trained):
    """A partition of higher priority takes all nodes: the job is requeued, and goes on when they are free again."""
    urgent = ["sbatch", "--parsable", "-p", "urgent", "-N", "4", "--exclusive", "--wrap", "sleep 5"]
    strike(untrained, trained, "preemption", lambda job: subprocess.run(urgent, check=True, cwd="/tmp"))
