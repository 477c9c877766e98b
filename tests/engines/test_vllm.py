"""Real vLLM on the CPU: round 1 of the default experiment, from its round 0 checkpoint. Run by `make test-vllm`."""

import os
import shutil

import pytest
import yaml

from tests.harness import REPOSITORY, Copy
from workflow_scripts.core.files import read_json
from workflow_scripts.core.pickles import read_pickle

PYTHON = os.environ.get("ROUNDHOUSE_VLLM")
pytestmark = pytest.mark.skipif(not PYTHON, reason="needs vLLM's environment: make test-vllm")


@pytest.fixture(scope="module")
def round1(tmp_path_factory) -> Copy:
    """Return the default experiment with the vllm engine, in one shard, since each job starts an engine."""
    config = yaml.safe_load((REPOSITORY / "config.yaml").read_text()) | {"shards": 1, "rounds": 1}
    config["generate"]["engine"] = "vllm"
    copy = Copy(tmp_path_factory.mktemp("vllm") / "copy", config | {"python": {"vllm": PYTHON}})

    for part in ("prompts", "checkpoints/init", "checkpoints/r0", "data"):
        shutil.copytree(REPOSITORY / "runs/arithmetic" / part, copy.path(part))

    copy.output = copy.snakemake("round1_checkpoint")
    return copy


def test_round_1_is_completed_and_learns(round1):
    assert "rule cold_start" not in round1.output

    before, after = (read_json(round1.path(f"evaluation/r{n}.json")) for n in (0, 1))
    assert after["accuracy"] > 0.9 > before["accuracy"]

    engine = read_json(round1.path("results/r1/auto/1_0.json"))["engine"]
    assert engine["engine"] == "vllm"
    assert engine["vllm"]
    print(f"accuracy {before['accuracy']:.3f} -> {after['accuracy']:.3f}")


def test_greedy_answers_equal_the_transformers_engines(round1):
    output = round1.folder / "transformers.pkl"
    command = ["workflow_scripts.generate", "--task", "math", "--version", "eval", "--output", str(output)]
    command += ["--prompts", "runs/arithmetic/prompts/eval.parquet"]
    command += ["--model", "runs/arithmetic/checkpoints/r0/checkpoint.json"]
    command += ["--settings", '{"eval": {"temperature": 0, "samples": 1, "max_tokens": 64, "turns": 2}}']
    round1.run(*command)

    ours = {row["uid"]: row["tokens"] for row in read_pickle(output)}
    theirs = {row["uid"]: row["tokens"] for row in read_pickle(round1.path("evaluation/r0/1_0.pkl"))}
    assert ours.keys() == theirs.keys()
    assert len(ours) == 360

    equal = sum(ours[uid] == theirs[uid] for uid in ours)
    print(f"{equal} of {len(ours)} greedy answers are equal")
    assert equal >= 0.99 * len(ours)


def test_sampled_logps_agree_with_the_logp_stage(round1):
    round1.snakemake("runs/arithmetic/report/logps_r1.json")
    metrics = read_json(round1.path("report/logps_r1.json"))
    print(metrics)

    assert metrics["tokens"] > 5000
    assert metrics["p95"] < 1e-4
    assert metrics["mean_ratio"] == pytest.approx(1, abs=0.01)
    assert "<svg" in round1.path("report/logps_r1.svg").read_text()
