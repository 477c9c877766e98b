"""The workflow on a real Slurm with fake GPUs: `make test-slurm` starts one (tests/workflow/slurm.sh) and runs these.

What each fault costs is printed at the end, in seconds of work.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from tests.harness import NOTHING_TO_DO, REPOSITORY, Copy, kill, tiny_config, wait_for
from workflow_scripts.core.files import read_json

pytestmark = pytest.mark.skipif(not os.environ.get("ROUNDHOUSE_SLURM"), reason="make test-slurm starts a Slurm")

# Each Python that starts below the copy's folder notes where it runs and which GPUs it sees.
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
GPU_STAGES = ("generate", "logp", "train")
LOST: dict[str, float] = {}  # seconds of work by fault


class OnSlurm(Copy):
    """A copy of the workflow that submits to Slurm by the profile `slurm`, with shorter waits."""

    def start(self, *arguments: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "snakemake", "--profile", "slurm", *QUICK, *arguments]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )

    def starts(self, module: str) -> list[list[str]]:
        """Return (GPUs, job, node) of each start of a stage."""
        lines = [line.split("|") for line in (self.folder / "starts.txt").read_text().splitlines()]
        return [rest for name, *rest in lines if name == module]

    def digest(self) -> str:
        """Return the digest of round 1's checkpoint."""
        return read_json(self.folder / CHECKPOINT)["digest"]

    def check_that_stages_ran_once(self) -> None:
        """Check that each stage was started once, except for training, which goes on in further attempts."""
        lines = (self.folder / "starts.txt").read_text().splitlines()
        counts = Counter(line.split("|")[0] for line in lines)
        assert all(count == 1 for stage, count in counts.items() if stage not in ("launch", "train")), counts


def copied(source: Copy, folder: Path) -> OnSlurm:
    """Return a copy of a copy with all that it made, to be run on Slurm."""
    shutil.copytree(source.folder, folder, symlinks=True)
    copy = OnSlurm.at(folder)
    (folder / "sitecustomize.py").write_text(PROBE)
    (folder / "starts.txt").unlink(missing_ok=True)
    return copy


# ---------------------------------------------------------------- fixtures


@pytest.fixture(scope="module")
def begun(tmp_path_factory, request) -> Copy:
    """Return round 0, made on this machine, of an experiment whose round 1 trains for a while.

    For the test of the time limit, that is more than a minute.
    """
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
    """Return the same after an undisturbed round 1 on this machine."""
    folder = tmp_path_factory.mktemp("trained") / "here"
    shutil.copytree(begun.folder, folder, symlinks=True)
    copy = Copy.at(folder)
    copy.snakemake(CHECKPOINT)
    return copy


@pytest.fixture
def untrained(trained, tmp_path) -> OnSlurm:
    """Return the same before its training."""
    copy = copied(trained, tmp_path / "slurm")
    shutil.rmtree(copy.path("checkpoints/r1"))
    return copy


@pytest.fixture(scope="module", autouse=True)
def table():
    """Print what each fault cost."""
    yield
    print("\nfault                          seconds of work lost")
    for fault, seconds in LOST.items():
        print(f"{fault:<30} {seconds:.1f}")


# ---------------------------------------------------------------- jobs and faults


def queue(form: str, *options: str) -> list[str]:
    """Return what squeue prints of the jobs in this form, such as "%A" for their ids."""
    command = ["squeue", "-h", "-o", form, *options]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def marks(copy: Copy) -> list[Path]:
    """Return the marks of the saved states of round 1's training, the newest last."""
    return sorted(copy.path("state/r1").glob("*/checkpoint-*/complete"), key=lambda path: path.stat().st_mtime)


def saved_at(copy: Copy) -> float:
    """Return when training last saved a state."""
    return marks(copy)[-1].stat().st_mtime


def start_training(copy: OnSlurm) -> tuple[subprocess.Popen, str]:
    """Return the driver and the id of its training job, a second after that saved states."""
    process = copy.start(CHECKPOINT)
    wait_for(lambda: len(marks(copy)) >= 2, process)
    time.sleep(1)
    return process, queue("%A", "-t", "R")[0]


def check_that_it_ends_well(copy: OnSlurm, process: subprocess.Popen, trained: Copy) -> None:
    """Check that the run ends complete and right: nothing that was finished, or that training saved, is done again."""
    output, _ = process.communicate(timeout=900)

    assert process.returncode == 0, output[-4000:]
    assert copy.digest() == read_json(trained.folder / CHECKPOINT)["digest"]
    assert "train: going on from update" in copy.path("logs/train/r1.log").read_text()
    copy.check_that_stages_ran_once()


def strike(copy: OnSlurm, trained: Copy, fault: str, blow: Callable[[str], object]) -> None:
    """Call `blow(job)` in the middle of the training, and check that the run ends well by itself."""
    process, job = start_training(copy)
    LOST[fault] = time.time() - saved_at(copy)
    blow(job)
    check_that_it_ends_well(copy, process, trained)


# ---------------------------------------------------------------- the literal command


@pytest.mark.slow
def test_a_round_on_slurm_equals_one_on_this_machine(tmp_path, finished):
    """A run makes everything up to round 1. Stages that use GPUs see one GPU each, and all others none."""
    copy = OnSlurm(tmp_path / "slurm", tiny_config())
    (copy.folder / "sitecustomize.py").write_text(PROBE)
    copy.snakemake("round1_checkpoint")

    assert copy.digest() == read_json(finished.folder / CHECKPOINT)["digest"]
    for stage in GPU_STAGES:
        assert copy.starts(stage)
        assert all(gpus in ("0", "1") and job for gpus, job, _ in copy.starts(stage))
    for stage in ("grade", "construct_meta", "construct_data", "evaluate", "init_model", "freeze_prompts"):
        assert copy.starts(stage)
        assert {gpus for gpus, *_ in copy.starts(stage)} <= {"", "NoDevFiles"}
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
    """2 × 2 ranks over gloo, started by one srun, have the metrics of one process at every update."""
    copy = copied(finished, tmp_path / "slurm")
    config = tiny_config()
    config["train"] |= {"nodes": 2, "processes": 2}
    copy.configure(config)
    copy.snakemake(CHECKPOINT)

    places = sorted((gpus, node) for gpus, _, node in copy.starts("train"))
    assert places == [("0,1", "n1")] * 2 + [("0,1", "n2")] * 2
    one, four = (json.loads(run.path("checkpoints/r1/history.json").read_text()) for run in (finished, copy))
    assert len(one) == len(four) > 2
    for a, b in zip(one, four):
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-4)
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4, abs=1e-6)
    AutoModelForCausalLM.from_pretrained(copy.path("checkpoints/r1/model"))


# ---------------------------------------------------------------- faults


def test_a_round_with_a_cancelled_job_and_a_killed_driver(begun, tmp_path):
    """Round 1 by sbatch, with the weights of a round that runs on this machine meanwhile.

    Its training job is cancelled in the middle and goes on in the next attempt. Then the driver is killed, and the job
    goes on without it. A restart refuses to submit beside it, says what to type, and finds it finished later.
    """
    here = copied(begun, tmp_path / "here")
    command = [sys.executable, "-m", "snakemake", "--profile", "local", CHECKPOINT]
    undisturbed = subprocess.Popen(command, cwd=here.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    copy = copied(begun, tmp_path / "slurm")
    process, cancelled = start_training(copy)
    LOST["scancel"] = time.time() - saved_at(copy)
    subprocess.run(["scancel", cancelled], check=True)
    wait_for(lambda: set(queue("%A", "-t", "R")) - {cancelled}, process, pause=0.2)
    [job] = set(queue("%A", "-t", "R")) - {cancelled}
    log = copy.path("logs/train/r1.log")
    # The new attempt removes the old log before it writes its own.
    wait_for(lambda: log.exists() and "train: going on from update" in log.read_text(), process)

    kill(process)
    LOST["kill -9 of the driver, awaited"] = 0.0
    refused = copy.snakemake(CHECKPOINT, fails=True)
    [name] = queue("%j", "-j", job)
    assert f"{job} RUNNING rule_train" in refused
    assert f"scancel --name={name}" in refused

    wait_for(lambda: not queue("%A"), pause=0.2)
    copy.snakemake(CHECKPOINT)  # recorded now, and not trained again
    assert "is trained already" in log.read_text()
    assert undisturbed.wait() == 0
    assert copy.digest() == here.digest()
    assert NOTHING_TO_DO in copy.snakemake("-n", CHECKPOINT)
    copy.check_that_stages_ran_once()
    for stage in GPU_STAGES:
        assert copy.starts(stage)
        assert all(gpus in ("0", "1") for gpus, *_ in copy.starts(stage))


def test_a_hopeless_job_is_tried_once_and_leaves_what_was_there(tmp_path):
    """The profile has retries, but bad input stays bad. A job that is killed is tried again."""
    here = Copy(tmp_path / "here", tiny_config())
    prompts = "runs/arithmetic/prompts/train.parquet"
    here.snakemake(prompts)
    copy = OnSlurm.at(here.folder)
    before = copy.path("prompts/train.parquet").read_bytes()

    for how, attempts in {"raise BadInput('x')": 1, "os.kill(os.getpid(), 9)": 2}.items():
        start = f"    try:\n        open('attempts', 'a').write('x')\n        {how}\n        sys.exit("
        copy.edit("workflow_scripts/core/running/cli.py", "    try:\n        sys.exit(", start)
        output = copy.snakemake(prompts, "--retries", "1", "--config", "seed=1", fails=True)
        copy.edit("workflow_scripts/core/running/cli.py", start, "    try:\n        sys.exit(")

        assert (copy.folder / "attempts").exists(), output
        assert len((copy.folder / "attempts").read_text()) == attempts
        assert copy.path("prompts/train.parquet").read_bytes() == before
        (copy.folder / "attempts").unlink()
    assert NOTHING_TO_DO in copy.snakemake("-n", prompts)


@pytest.mark.slow
def test_a_killed_driver_whose_jobs_are_ended(untrained, trained):
    """The other reaction: the line that the refusal shows, and the same command again."""
    process, _ = start_training(untrained)
    kill(process)
    refused = untrained.snakemake(CHECKPOINT, fails=True)
    subprocess.run(refused.split("end its jobs with\n")[1].splitlines()[0].split(), check=True)
    wait_for(lambda: not queue("%A"), pause=0.2)

    LOST["kill -9 of the driver, ended"] = time.time() - saved_at(untrained)
    check_that_it_ends_well(untrained, untrained.start(CHECKPOINT), trained)


@pytest.mark.slow
def test_a_job_at_its_time_limit(untrained, trained):
    """A minute is less than the training needs: it saves, ends with status 75, and goes on in the next attempt."""
    process = untrained.start("--set-resources", "train:runtime=1 if attempt == 1 else 30", "--", CHECKPOINT)
    log = untrained.path("logs/train/r1.log")
    wait_for(lambda: log.exists() and "exit status 75" in log.read_text(), process)

    LOST["time limit"] = max(0.0, time.time() - saved_at(untrained) - 1)
    check_that_it_ends_well(untrained, process, trained)


@pytest.mark.slow
def test_a_lost_node(untrained, trained):
    """When a node's daemon and the job on it are gone, Slurm requeues the job elsewhere."""

    def lose_node(job: str) -> None:
        [node] = queue("%N", "-j", job)
        daemon = int(Path(f"/var/tmp/roundhouse-slurm/run/slurmd-{node}.pid").read_text())
        os.kill(daemon, signal.SIGKILL)

        for process in Path("/proc").glob("[0-9]*"):
            try:
                is_step = f"[{job}." in (process / "cmdline").read_text()
                is_of_job = f"SLURM_JOB_ID={job}\0" in (process / "environ").read_text(errors="replace")
            except OSError:
                continue
            if is_step or is_of_job:
                os.kill(int(process.name), signal.SIGKILL)

    try:
        strike(untrained, trained, "lost node", lose_node)
    finally:
        subprocess.run([REPOSITORY / "tests/workflow/slurm.sh"], check=True)


@pytest.mark.slow
def test_a_preempted_job(untrained, trained):
    """A partition of higher priority takes all nodes: the job is requeued, and goes on when they are free again."""
    urgent = ["sbatch", "--parsable", "-p", "urgent", "-N", "4", "--exclusive", "--wrap", "sleep 5"]
    strike(untrained, trained, "preemption", lambda job: subprocess.run(urgent, check=True, cwd="/tmp"))
