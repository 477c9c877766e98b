"""Prompts selected from a pool: by mode, and as the workflow does it, with cached answers and generated ones."""

import csv
import json

import datasets
import pandas as pd
import pytest
from conftest import Copy

from workflow_scripts.core.records import BadInput, read_json
from workflow_scripts.select_prompts import selected

SCORES = {f"p{i}": i / 10 for i in range(10)}


@pytest.mark.parametrize(
    "mode, expected", [("hard", "210"), ("easy", "987"), ("medium", "654")], ids=["hard", "easy", "medium"]
)
def test_modes(mode, expected):
    assert selected(SCORES, mode, 3, 0) == [f"p{i}" for i in expected]


def test_random_is_seeded_and_sorted_like_the_rest():
    first, again, other = (selected(SCORES, "random", 5, seed) for seed in (0, 0, 1))
    assert first == again != other and sorted(first, reverse=True) == first and len(set(first)) == 5


def test_more_than_there_are_is_an_error():
    with pytest.raises(BadInput, match="11 prompts asked, the pool has 10"):
        selected(SCORES, "medium", 11, 0)


def test_the_workflow_selects_what_the_model_answers_worst(tmp_path):
    pool = [
        {"id": f"p{i}", "source": "s", "messages": [{"role": "user", "content": f"Say number {i}."}]}
        | {"ref_output_gold": f"It is the number {i}.", "ref_output_other": f"The number is {i}."}
        for i in range(12)
    ]
    del pool[11]["ref_output_other"]
    config = {
        "name": "mine", "task": "reference", "rounds": 1, "reward": "bleu", "shards": 2,
        "prompts": {"pool": {"file": "pool.jsonl"}, "eval": {"count": {"greet": 2}}, "ref_models": ["gold", "other"]},
        "selection": {"num_examples": 4, "inference": "cached.csv"},
        "model": {"scratch": {"layers": 1, "width": 32, "heads": 2, "mlp_width": 64, "vocabulary": 300}},
        "cold_start": {"count": {"greet": 64}, "train": {"threads": 1}},
        "generate": {"trigger": None, "pool": {"samples": 1, "max_tokens": 8, "turns": 1}},
        "data": {"advantage": "group_std"},
    }  # fmt: skip
    copy = Copy(tmp_path, config)
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pool))
    with open(tmp_path / "cached.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "response"])
        writer.writerows([[f"p{i}", f"It is the number {i}."] for i in range(8)])  # as good as can be
    train, name = "runs/mine/prompts/train.parquet", "pool_bleu_mine_2ref-gold-other_hard_4"
    copy.snakemake(train, f"runs/mine/data_grpo/{name}")
    run = tmp_path / "runs/mine"
    scores = read_json(run / "scored_outputs/pool_bleu_mine_2ref-gold-other.json")
    assert len(scores) == 11 and [scores[f"p{i}"]["score"] for i in range(8)] == pytest.approx([1.0] * 8)
    answers = pd.read_csv(run / "inference_outputs/mine_inference_results.csv")
    assert list(answers) == ["id", "source", "prompt", "response"] and len(answers) == 11
    chosen = set(pd.read_parquet(run / "prompts/train.parquet")["id"])
    assert chosen > {"p8", "p9", "p10"} and len(chosen) == 4  # those that were not cached, and one more
    grpo = datasets.load_from_disk(run / "data_grpo" / name)["train"]
    assert set(grpo["id"]) == chosen and grpo["bleu_score"] == sorted(grpo["bleu_score"], reverse=True)
    assert grpo[0]["references"][0] == grpo[0]["ground_truth"] and len(grpo[0]["references"]) == 2
    sft = datasets.load_from_disk(run / "data_sft" / f"{name}_SFT")["train"]
    assert sft[1]["id"] == f"{grpo[0]['id']}_1" and sft[1]["messages"][1]["content"] == grpo[0]["references"][1]
    assert "no ref_output_other" in (run / "prompts/rejects.jsonl").read_text()
    log = (run / "logs/generate_pool/2_0.log").read_text() + (run / "logs/generate_pool/2_1.log").read_text()
    assert (
        sum(int(line.split(" answers to ")[0].split()[-1]) for line in log.splitlines() if " answers to " in line) == 3
    )

    for change in ({"mode": "random"}, {"num_examples": 5}, {"metric": "rouge"}):
        copy.configure(config | {"selection": config["selection"] | change})
        pending = copy.snakemake("-n", train)
        assert "rule select_prompts:" in pending and ("rule score_pool:" in pending) == ("metric" in change)
    copy.snakemake(train)
    assert read_json(run / "prompts/train.json")["settings"]["metric"] == "rouge"
    copy.configure(config | {"selection": config["selection"] | {"num_examples": 12}})
    assert "12 prompts asked, the pool has 11" in copy.snakemake(train, fails=True)
