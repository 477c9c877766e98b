"""Kill -9 of a generation or of its engine's server: no answer is lost or doubled, and finished ones are kept."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.harness import REPOSITORY, in_ledger, kill, wait_for
from workflow_scripts.core.files import read_json
from workflow_scripts.core.pickles import read_pickle
from workflow_scripts.core.running import residents
from workflow_scripts.core.running.ledger import Ledger

VLLM = os.environ.get("ROUNDHOUSE_VLLM")
needs_vllm = pytest.mark.skipif(not VLLM, reason="needs vLLM's environment: make test-vllm")
needs_round0 = pytest.mark.skipif(
    not (REPOSITORY / "runs/arithmetic/checkpoints/r0/checkpoint.json").exists(), reason="needs a round 0: make demo"
)
pytestmark = [pytest.mark.slow, needs_round0, pytest.mark.usefixtures("own_engines")]

QUESTIONS = 240


class Generation:
    """The stage `generate`, which may be killed and started again."""

    def __init__(self, folder: Path, engine: str = "vllm", samples: int = 1):
        self.output = folder / "answers.pkl"
        self.count = QUESTIONS * samples
        run = REPOSITORY / "runs/arithmetic"
        sampling = {"samples": samples, "max_tokens": 64, "turns": 2}
        settings = {"engine": engine, "auto": sampling, "batch_size": 32}

        self.command = [str(VLLM) if engine == "vllm" else sys.executable, "-m", "workflow_scripts.generate"]
        self.command += ["--task", "math", "--version", "auto", "--prompts", str(run / "prompts/train.parquet")]
        self.command += ["--model", str(run / "checkpoints/r0/checkpoint.json"), "--settings", json.dumps(settings)]
        self.command += ["--save-seconds", "0", "--keep-engine", "600", "--output", str(self.output)]

    def start(self) -> subprocess.Popen:
        return subprocess.Popen(self.command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True, start_new_session=True)

    def entries(self) -> dict[str, Any]:
        """Return what the ledger holds. No key may be in it twice."""
        folder = Path(f"{self.output}.ledger")
        pairs = list(Ledger(folder, "1_0").entries()) if folder.is_dir() else []
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    def wait_for(self, count: int, process: subprocess.Popen) -> None:
        """Wait until the ledger has so many entries, or the stage has ended."""
        wait_for(lambda: len(self.entries()) >= count or process.poll() is not None)

    def finish(self, process: subprocess.Popen) -> dict[str, Any]:
        """Wait for the end; check that no answer is lost or doubled; return what the stage wrote about its work."""
        _, log = process.communicate(timeout=900)
        assert process.returncode == 0, log

        answers = read_pickle(self.output)
        assert len(answers) == len({answer["uid"] for answer in answers}) == len(self.entries()) == self.count
        return read_json(self.output.with_suffix(".usage.json")) | {"log": log}


def servers() -> list[int]:
    return [read_json(path)["pid"] for path in residents.folder().glob("*.json")]


def kill_servers() -> None:
    for server in servers():
        os.kill(server, signal.SIGKILL)


@needs_vllm
def test_after_kill_9_of_the_job_its_engine_serves_the_next_one(tmp_path):
    generation = Generation(tmp_path)
    process = generation.start()
    generation.wait_for(50, process)
    kill(process)

    before = generation.entries()
    [server] = servers()
    usage = generation.finish(generation.start())
    assert servers() == [server] and usage["engine_starts"] == 0
    assert in_ledger(usage["log"]) == (len(before), QUESTIONS)
    assert before.items() <= generation.entries().items()


@needs_vllm
def test_after_kill_9_of_the_engine_the_job_goes_on(tmp_path):
    generation = Generation(tmp_path)
    process = generation.start()
    generation.wait_for(50, process)
    kill_servers()

    usage = generation.finish(process)
    assert usage["engine_starts"] >= 1
    assert "the engine's server has died; another one is started" in usage["log"]
