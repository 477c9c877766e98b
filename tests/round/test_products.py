"""Test what a finished round leaves behind: files, checkpoints, log-probs and metrics."""

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from workflow_scripts.core.files import read_json
from workflow_scripts.core.pickles import read_pickle

DATA = "data/offline_small_r1_arithmetic"
FILES = (
    "prompts/train.parquet",
    "results/r1/auto/2_0.pkl",
    "results/r1/trigger/2_1_matchlog.pkl",
    "meta/r1_auto_q2responses_arithmetic.pkl",
    "meta/r1_trigger_q2responses_arithmetic.pkl",
    f"{DATA}.pkl",
    f"{DATA}_logp/2_0.pkl",
    "checkpoints/r1/checkpoint.json",
    "evaluation/r1.json",
    "logs/train/r1.log",
    "benchmarks/train/r1.tsv",
)


def test_a_round_leaves_files_with_the_original_systems_names(finished):
    for name in FILES:
        assert finished.path(name).exists(), name


def test_a_run_ends_with_a_table_of_its_rounds(finished):
    output = (finished.folder / "output.txt").read_text()
    assert "round" in output
    assert "accuracy" in output


def test_metrics_are_of_all_questions_and_of_each_level(finished):
    metrics = read_json(finished.path("evaluation/r1.json"))

    assert set(metrics) >= {"round", "accuracy", "code_share", "by_level"}
    assert metrics["by_level"].keys() == {"one_digit", "two_digit_sum", "two_digit_product"}
    assert metrics["by_level"]["one_digit"].keys() >= {"accuracy", "code_share", "n", "intervals"}


def test_checkpoints_load_with_transformers(finished):
    folder = finished.path("checkpoints/r1/model")
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)

    assert type(model).__name__ == "LlamaForCausalLM"
    assert tokenizer.is_fast
    ids = tokenizer("User:What is 3 + 4?\n\nAssistant:", return_tensors="pt")
    assert model.generate(**ids, max_new_tokens=3).shape[0] == 1


def test_logps_are_per_sampled_token_and_carry_a_passport(finished):
    rows = read_pickle(finished.path(f"{DATA}.pkl"))
    start = read_json(finished.path("checkpoints/r0/checkpoint.json"))

    logps = {}
    for shard in ("2_0", "2_1"):
        logps |= read_pickle(finished.path(f"{DATA}_logp/{shard}.pkl"))
        passport = read_json(finished.path(f"{DATA}_logp/{shard}.json"))["passport"]
        assert passport["model"] == start["digest"]
        assert passport["dtype"] == "float32"

    for row in rows:
        assert logps[row["uid"]].dtype == "float32"
        assert len(logps[row["uid"]]) == sum(row["mask"])
        assert row["policy"] == start["digest"]


def test_a_round_begins_on_policy(finished):
    history = read_json(finished.path("checkpoints/r1/history.json"))

    assert history[0]["ratio"] == pytest.approx(1, abs=1e-4)
    assert history[0]["foreign"] == 0


def test_the_tasks_switches_choose_what_a_round_trains_on(finished):
    """The tiny config has the switches keeptrigger and all."""
    kinds = read_json(finished.path(f"{DATA}.json"))["kinds"]

    assert any(".trigger." in kind for kind in kinds)
    assert {"cot.auto.better", "pot.auto.better"} & kinds.keys()


def test_the_outputs_of_programs_are_masked(finished):
    masked = 0
    for shard in ("2_0", "2_1"):
        for answer in read_pickle(finished.path(f"results/r1/trigger/{shard}.pkl")):
            assert len(answer["tokens"]) == len(answer["mask"])
            masked += 0 in answer["mask"]

    assert masked, "no program was run: the tiny model never wrote one"
