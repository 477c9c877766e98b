"""Real vLLM on the CPU: round 1 of the default experiment, from its round 0 checkpoint. Run by `make test-vllm`."""

import json
import os
import re
import shutil
import subprocess

import pytest
import yaml

from tests.harness import REPOSITORY, Copy
from workflow_scripts.core.files import read_json
from workflow_scripts.core.pickles import read_pickle
from workflow_scripts.init_model import make_model, train_tokenizer

PYTHON = os.environ.get("ROUNDHOUSE_VLLM")
pytestmark = [
    pytest.mark.skipif(not PYTHON, reason="needs vLLM's environment: make test-vllm"),
    pytest.mark.usefixtures("own_engines"),
]


@pytest.fixture(scope="module")
def round1(tmp_path_factory) -> Copy:
    """Return the default experiment with the vllm engine, whose jobs run one after another."""
    config = yaml.safe_load((REPOSITORY / "config.yaml").read_text()) | {"shards": 2, "rounds": 1}
    config["generate"] |= {"engine": "vllm", "threads": 2, "keep_engine": 600}
    copy = Copy(tmp_path_factory.mktemp("vllm") / "copy", config | {"python": {"vllm": PYTHON}})

    source = REPOSITORY / "runs/arithmetic"
    for part in ("prompts", "checkpoints/init", "checkpoints/r0"):
        shutil.copytree(source / part, copy.path(part))
    copy.path("data").mkdir()
    for path in source.glob("data/sft_*"):  # of the cold start; round 1 makes its own data
        shutil.copy2(path, copy.path("data"))

    copy.output = copy.snakemake("round1_checkpoint")
    return copy


def test_round_1_is_completed_and_learns(round1):
    assert "rule cold_start" not in round1.output

    of_round0 = [
        *round1.path("evaluation/r0").glob("*_?.usage.json"),
        *round1.path("results/r1").glob("*/*_?.usage.json"),
    ]
    of_round1 = list(round1.path("evaluation/r1").glob("*_?.usage.json"))
    for answers, count in ((of_round0, 6), (of_round1, 2)):
        starts = [read_json(path)["engine_starts"] for path in answers]
        assert len(starts) == count
        assert sum(starts) == 1, "one start serves all jobs that ask a checkpoint"

    before, after = (read_json(round1.path(f"evaluation/r{n}.json")) for n in (0, 1))
    assert after["accuracy"] > 0.9 > before["accuracy"]

    engine = read_json(round1.path("results/r1/auto/2_0.json"))["engine"]
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
    theirs = {}
    for shard in ("2_0", "2_1"):
        theirs |= {row["uid"]: row["tokens"] for row in read_pickle(round1.path(f"evaluation/r0/{shard}.pkl"))}
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


# ---------------------------------------------------------------- settings

SCRATCH = {"layers": 2, "width": 64, "heads": 2, "mlp_width": 64, "context": 256, "init_std": 0.3}
DATE = r"[0-9]{4}-[0-9]{2}"
SCHEMA = {
    "type": "object",
    "properties": {"age": {"enum": [1, 22]}},
    "required": ["age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("model")
    tokenizer = train_tokenizer(["What is 3 + 4? The answer is 7."] * 10, 300)
    make_model(SCRATCH, tokenizer, 0).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


def ask(model: str, fails: bool = False, **values) -> dict:
    """Return what vLLM answers with these settings, or the error that it ends with."""
    command = [str(PYTHON), "-m", "tests.engines.ask_vllm", model, json.dumps(values)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert bool(done.returncode) == fails, done.stderr
    return {"error": done.stderr} if fails else json.loads(done.stdout.splitlines()[-1])


def test_limits_reach_the_engine(model):
    limits = {"max_model_len": 40, "max_num_seqs": 2, "enable_prefix_caching": False}
    facts = ask(model, settings=limits, count=6)
    assert (facts["window"], facts["slots"], facts["caches_prefixes"]) == (40, 2, False)
    assert facts["version"]["max_model_len"] == 40
    assert not {"max_num_seqs", "enable_prefix_caching"} & facts["version"].keys()
    assert 0 < facts["usage"]["mean_running_requests"] <= 2
    assert all(answer["logps"] == answer["tokens"] for answer in facts["answers"])

    error = ask(model, fails=True, settings={"max_model_len": 100_000})["error"]
    assert "BadInput: generate.vllm: vLLM cannot run" in error


def test_answers_have_the_form_that_is_required(model):
    facts = ask(model, sampling={"structured": {"regex": DATE, "json_schema": None}})
    assert all(re.fullmatch(DATE, answer["text"]) for answer in facts["answers"])
    assert all(answer["logps"] == 0 for answer in facts["answers"])  # they are not those of the whole distribution

    facts = ask(model, sampling={"structured": {"regex": None, "json_schema": SCHEMA}}, max_tokens=100)
    finished = [answer for answer in facts["answers"] if answer["finish"] == "eos"]
    assert finished
    assert all(json.loads(answer["text"])["age"] in (1, 22) for answer in finished)


def test_a_stop_text_ends_an_answer_and_a_penalty_avoids_repetition(model):
    facts = ask(model, stop=["w"], count=16, max_tokens=100)
    stopped = [answer for answer in facts["answers"] if answer["finish"] == "stop"]
    assert stopped and all("w" in answer["text"] for answer in stopped)

    plain = ask(model, sampling={"temperature": 0}, count=1, max_tokens=200)
    penalised = ask(model, sampling={"temperature": 0, "repetition_penalty": 2.0}, count=1, max_tokens=200)
    assert plain["answers"][0]["text"] != penalised["answers"][0]["text"]
    assert penalised["answers"][0]["logps"] == 0
