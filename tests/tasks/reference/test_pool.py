"""Prompts selected from a pool: by mode, and as the workflow does it, with existing answers and generated ones."""

import csv
import json
import re

import datasets
import pandas as pd
import pytest

from tests.harness import NOTHING_TO_DO, Copy, jobs
from workflow_scripts.config.layout import Run
from workflow_scripts.config.load import load
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json
from workflow_scripts.core.pickles import read_pickle, write_pickle
from workflow_scripts.core.slices import Slicing, slice_of
from workflow_scripts.init_model import make_model, train_tokenizer
from workflow_scripts.tasks.reference.score_pool import read_answers
from workflow_scripts.tasks.reference.select_prompts import select
from workflow_scripts.tasks.reference.wing import Wing

SCORES = {f"p{i}": i / 10 for i in range(10)}


# ---------------------------------------------------------------- the stages


@pytest.mark.parametrize(("mode", "expected"), [("hard", "210"), ("easy", "987"), ("medium", "654")])
def test_modes(mode, expected):
    assert select(SCORES, mode, 3, 0) == [f"p{i}" for i in expected]


def test_equal_scores_are_in_the_order_of_their_ids():
    assert select({"c": 0.5, "a": 0.5, "b": 0.5}, "easy", 2, 0) == ["a", "b"]


def test_random_is_seeded_and_sorted_like_the_rest():
    first, again, other = (select(SCORES, "random", 5, seed) for seed in (0, 0, 1))
    assert first == again != other
    assert sorted(first, reverse=True) == first
    assert len(set(first)) == 5


def test_more_prompts_than_there_are_is_an_error():
    with pytest.raises(BadInput, match="11 prompts requested, the pool has 10"):
        select(SCORES, "medium", 11, 0)


def test_generated_answers_and_existing_ones_make_the_answers_to_a_pool(tmp_path):
    existing = tmp_path / "cached.csv"
    existing.write_text("id,response\na,cached\n")
    results = tmp_path / "1_0.pkl"
    write_pickle(results, [{"id": "b", "answer": "generated"}])
    pool = [{"id": "a"}, {"id": "b"}]

    assert read_answers(pool, [str(results)], str(existing)) == {"a": "cached", "b": "generated"}
    with pytest.raises(BadInput, match="1 prompts of the pool have no answer; the first is b"):
        read_answers(pool, [], str(existing))


# ---------------------------------------------------------------- the workflow

NAME = "pool_bleu_mine_2ref-gold-other_hard_4"
TRAIN = "runs/mine/prompts/train.parquet"


def pool_config() -> dict:
    """Return a config that selects 4 of the prompts in pool.jsonl. Most of their answers are in cached.csv."""
    return {
        "name": "mine",
        "task": "reference",
        "rounds": 1,
        "reward": "bleu",
        "shards": 2,
        "prompts": {"pool": {"file": "pool.jsonl"}, "eval": {"count": {"greet": 2}}},
        "reference": {
            "ref_models": ["gold", "other"],
            "selection": {"num_examples": 4, "inference": "cached.csv"},
        },
        "model": {"path": "model"},
        "generate": {"trigger": None, "pool": {"samples": 1, "max_tokens": 8, "turns": 1}},
        "data": {"advantage": "group_std"},
    }


def write_model(copy: Copy) -> None:
    """Write a small model with random weights. Its answers are nonsense."""
    tokenizer = train_tokenizer(["Say number 7. It is the number 7."], 300)
    shape = {"width": 32, "mlp_width": 64, "layers": 1, "heads": 2, "context": 128, "init_std": 0.06}
    make_model(shape, tokenizer, 0).save_pretrained(copy.folder / "model")
    tokenizer.save_pretrained(copy.folder / "model")


def with_selection(**changes) -> dict:
    config = pool_config()
    config["reference"]["selection"] |= changes
    return config


def write_pool(copy: Copy) -> None:
    """Write 12 prompts, of which the last lacks a reference, and perfect answers to the first 8."""
    records = []
    for i in range(12):
        references = {"ref_output_gold": f"It is the number {i}.", "ref_output_other": f"The number is {i}."}
        messages = [{"role": "user", "content": f"Say number {i}."}]
        records.append({"id": f"p{i}", "source": "s", "messages": messages, **references})
    del records[11]["ref_output_other"]
    (copy.folder / "pool.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))

    with open(copy.folder / "cached.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "response"])
        writer.writerows([[f"p{i}", f"It is the number {i}."] for i in range(8)])


def wing_of(config: dict) -> Wing:
    cfg = load(config)
    return Wing(cfg, Run(cfg))


def test_the_rules_know_the_files_of_the_selection(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_rewards.py").write_text("def length(answer, references, record):\n    return 0.0\n")
    wing = wing_of(pool_config())
    assert wing.named_files() == {"reference.selection.inference": "cached.csv"}
    assert wing.products(0) == []
    assert wing.reward("score_pool") == "bleu" and wing.reward("grade") is None
    assert wing.products(1) == [f"runs/mine/data_grpo/{NAME}", f"runs/mine/data_sft/{NAME}_SFT"]

    wing = wing_of(with_selection(inference=None, metric="my_rewards.py:length", mode="easy"))
    assert wing.named_files() == {}
    assert wing.scores == "runs/mine/scored_outputs/pool_my_rewards_mine_2ref-gold-other.json"
    assert wing.grpo_data == "runs/mine/data_grpo/pool_my_rewards_mine_2ref-gold-other_easy_4"


def test_only_freezing_depends_on_where_references_come_from():
    wing = wing_of(pool_config())
    assert wing.settings("freeze_prompts") == {"ref_models": ["gold", "other"]}
    for stage in ("generate", "grade", "construct_meta", "construct_data", "evaluate"):
        assert wing.settings(stage) == {}


def generated(run) -> int:
    """Return how many answers to the pool were generated, by the logs."""
    logs = [(run / f"logs/generate_pool/2_{rank}.log").read_text() for rank in range(2)]
    return sum(int(count) for log in logs for count in re.findall(r"(\d+) answers to ", log))


@pytest.mark.slow
def test_the_workflow_selects_what_the_model_answers_worst(tmp_path):
    copy = Copy(tmp_path, pool_config())
    write_model(copy)
    write_pool(copy)
    copy.snakemake(TRAIN, f"runs/mine/data_grpo/{NAME}")
    run = tmp_path / "runs/mine"

    scores = read_json(run / "scored_outputs/pool_bleu_mine_2ref-gold-other.json")
    assert len(scores) == 11 and "no ref_output_other" in (run / "prompts/rejects.jsonl").read_text()
    assert [scores[f"p{i}"]["score"] for i in range(8)] == pytest.approx([1.0] * 8)
    assert generated(run) == 3  # those without an answer in cached.csv

    answers = pd.read_csv(run / "inference_outputs/mine_inference_results.csv")
    assert list(answers) == ["id", "source", "prompt", "response"] and len(answers) == 11

    chosen = set(pd.read_parquet(copy.folder / TRAIN)["id"])
    assert len(chosen) == 4 and chosen > {"p8", "p9", "p10"}  # the generated answers are worse than the cached ones

    grpo = datasets.load_from_disk(run / "data_grpo" / NAME)["train"]
    assert set(grpo["id"]) == chosen
    assert grpo["bleu_score"] == sorted(grpo["bleu_score"], reverse=True)
    assert grpo[0]["references"][0] == grpo[0]["ground_truth"] and len(grpo[0]["references"]) == 2

    sft = datasets.load_from_disk(run / "data_sft" / f"{NAME}_SFT")["train"]
    assert sft[1]["id"] == f"{grpo[0]['id']}_1"
    assert sft[1]["messages"][1]["content"] == grpo[0]["references"][1]

    _check_slices(copy, chosen)
    _check_what_reruns(copy)


def _check_slices(copy: Copy, chosen: set[str]) -> None:
    """Check that a round answers a part of the prompts that a job selected, and that the pool is answered as before."""
    copy.configure(pool_config() | {"prompts_per_round": 3, "shards": {"auto": 2, "eval": 1}})
    answers = [f"runs/mine/results/r1/auto/2_{rank}.pkl" for rank in range(2)]
    assert jobs(copy.snakemake("-n", *answers)) == {"slice_prompts", "generate"}

    copy.snakemake(*answers)
    answered = {answer["id"] for path in answers for answer in read_pickle(copy.folder / path)}
    assert answered == slice_of(sorted(chosen), Slicing(3, 0), 1)
    assert NOTHING_TO_DO in copy.snakemake("-n", *answers, TRAIN)
    copy.configure(pool_config())


def _check_what_reruns(copy: Copy) -> None:
    """Check that a changed selection selects again, and that only another metric scores again."""
    assert NOTHING_TO_DO in copy.snakemake("-n", TRAIN)

    for change in ({"mode": "random"}, {"num_examples": 5}, {"metric": "rouge"}):
        copy.configure(with_selection(**change))
        pending = jobs(copy.snakemake("-n", TRAIN))
        assert pending - {"score_pool"} == {"select_prompts"}, change
        assert ("score_pool" in pending) == ("metric" in change)

    copy.snakemake(TRAIN)
    assert read_json(copy.folder / "runs/mine/prompts/train.json")["settings"]["metric"] == "rouge"

    copy.configure(with_selection(num_examples=12))
    assert "12 prompts requested, the pool has 11" in copy.snakemake(TRAIN, fails=True)
