"""The tabular recipe as the workflow runs it: a round on a CSV file, what it leaves, and what it refuses."""

import csv
import json
import random
import shutil

import pytest
from conftest import Copy

from workflow_scripts.core.records import read_json, read_pickle, read_records
from workflow_scripts.core.schemas import STATUSES
from workflow_scripts.core.tables import fold_of


def write_table(path, count: int, seed: int, names=("a", "b", "y")) -> None:
    """Two digits each, and whether the first is the larger one."""
    rng = random.Random(seed)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for _ in range(count):
            a, b = rng.randint(10, 99), rng.randint(10, 99)
            writer.writerow([a, b, "up" if a > b else "no"])


def small_config(**tabular) -> dict:
    training = {"lr": 3e-3, "adam_beta2": 0.98, "batch_size": 16, "threads": 1, "schedule": "linear"}
    return {
        "name": "rows", "task": "tabular", "rounds": 1, "shards": 1,
        "tabular": {
            "dataset": "mine", "datasets": {"mine": {"file": "mine.csv"}, "other": {"file": "other.csv"}},
            "examples": 1200, "own_share": 0.5, "num_clusters": 4, "shots": 1, "clients": 2,
            "merge": {"method": "linear"}, "train": training, **tabular,
        },
        "model": {"scratch": {"layers": 2, "width": 64, "heads": 2, "mlp_width": 128, "vocabulary": 400}},
        "cold_start": {"train": training},
        "generate": {"trigger": None, "auto": {"samples": 4, "max_tokens": 40, "turns": 1},
                     "eval": {"samples": 4, "temperature": 1.0, "max_tokens": 40, "turns": 1}},
        "data": {"tag": "pairs", "pairs": 30},
        "train": {"objective": "dpo", "lr": 1e-4, "batch_size": 16, "threads": 1},
    }  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    copy = Copy(tmp_path_factory.mktemp("tabular"), small_config())
    write_table(copy.folder / "mine.csv", 90, 0)
    write_table(copy.folder / "other.csv", 60, 1, ("b", "c", "y"))
    copy.snakemake("round1_checkpoint")
    return copy


@pytest.mark.slow
def test_a_round_leaves_the_originals_folders(done):
    run = done.folder / "runs/rows"
    for name in (
        "datasets/mine/schema.json", "syn_datasets/sft_syn_mine/alpaca_train.json",
        "syn_datasets/sft_syn_mine/dataset/dataset_dict.json", "score_anchors/mine_anchors.csv",
        "syned_datasets/original_0_sft_fed/mine_client_1.test.jsonl", "syned_datasets/r1_sft_fed/mine_fold_0.jsonl",
        "r1_raw/mine.raw.jsonl", "r1_csv/mine.train.csv", "r1_score/mine.score.jsonl", "r1_dpo/mine.pref.jsonl",
        "checkpoints/merged_r1_0/checkpoint.json", "checkpoints/r1/checkpoint.json", "report/table_r1.svg",
    ):  # fmt: skip
        assert (run / name).exists(), name
    figures = read_json(run / "evaluation/r1.json")
    assert set(figures) >= {"valid", "statuses", "tstr", "real", "bootstrap", "copies", "columns", "by_model"}
    assert sum(figures["statuses"].values()) == pytest.approx(1) and set(figures["statuses"]) == set(STATUSES)
    assert "round 1: sound" in done.snakemake("verify")
    assert "Nothing to be done" in done.snakemake("-n", "round1_checkpoint")


@pytest.mark.slow
def test_prompts_anchors_and_shots_are_training_rows(done):
    run = done.folder / "runs/rows"
    test = {tuple(row.values()) for row in read_records(run / "datasets/mine/test.csv")}
    train = {tuple(row.values()) for row in read_records(run / "datasets/mine/train.csv")}
    assert test and not test & train
    for prompt in read_records(run / "prompts/train.parquet"):
        shown = [json.loads(line) for line in prompt["question"].splitlines() if line.startswith("{")]
        assert len(shown) == 5 and {tuple(map(str, row.values())) for row in shown} <= train
    assert {tuple(row.values()) for row in read_records(run / "score_anchors/mine_anchors.csv")} <= train


@pytest.mark.slow
def test_each_row_is_scored_by_a_model_that_did_not_train_on_it(done):
    run = done.folder / "runs/rows"
    scored = [one for one in read_records(run / "r1_score/mine.score.jsonl") if one["score"] is not None]
    assert scored and all(one["score"] == pytest.approx(one["ds1"]["score"] - one["ds0"]["score"]) for one in scored)
    for fold in (0, 1):
        asked = [one["prompt"] for one in read_records(run / f"syned_datasets/r1_sft_fed/mine_fold_{fold}.jsonl")]
        learnt = {prompt.splitlines()[-1] for prompt in asked}
        mine = [one["result"] for one in scored if fold_of(one["result"]) == fold]
        lines = {json.dumps({key: row[key] for key in ("a", "b")}) for row in mine}
        other = {json.dumps({k: o["result"][k] for k in ("a", "b")}) for o in scored if fold_of(o["result"]) != fold}
        assert learnt and learnt <= other and not (lines - other) & learnt


@pytest.mark.slow
def test_pairs_are_of_one_prompt_and_keep_the_tokens_as_sampled(done):
    run = done.folder / "runs/rows"
    rows = read_pickle(run / "data/offline_pairs_r1_rows.pkl")
    answers = {record["uid"]: record for record in read_pickle(run / "results/r1/auto/1_0_matchlog.pkl")}
    for chosen, rejected in zip(rows[::2], rows[1::2]):
        one, other = answers[chosen["source"]], answers[rejected["source"]]
        assert one["question"] == other["question"] and STATUSES[one["status"]] >= STATUSES[other["status"]]
        assert chosen["tokens"] == one["tokens"] and rejected["tokens"] == other["tokens"]
    exported = list(read_records(run / "r1_dpo/mine.pref.jsonl"))
    assert len(exported) == len(rows) // 2 <= 30
    assert exported[0]["chosen"][0] == exported[0]["rejected"][0]
    assert exported[0]["chosen"][1] == {"role": "assistant", "content": rows[0]["output"]}


@pytest.mark.slow
def test_a_changed_pair_count_keeps_the_answers_and_their_scores(done, tmp_path):
    shutil.copytree(done.folder, tmp_path / "fork", symlinks=True)
    fork = Copy.at(tmp_path / "fork")
    output = fork.snakemake("-n", "round1_checkpoint", "--config", "data={pairs: 20}")
    assert "construct_data" in output and "addscore" not in output.rsplit("Job stats:", 1)[-1].split("Reasons")[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tabular": {"dataset": "yours"}}, "dataset: 'yours' is none of datasets: mine"),
        ({"tabular": None}, "task tabular needs a section `tabular`"),
        ({"task": "math"}, "`tabular` belongs to the task tabular"),
        ({"train": {"objective": "clip"}}, "task tabular makes preference pairs: dpo"),
        ({"generate": {"trigger": {"samples": 1}}}, "asks in one way alone"),
        ({"tabular": {"datasets": {"mine": {"file": "a.csv", "sklearn": "iris"}}}}, "both are given"),
        ({"tabular": {"num_cluster": 3}}, "did you mean 'num_clusters'"),
    ],
)
def test_configs_that_cannot_work(change, message):
    from workflow_scripts.core.config import ConfigError, load

    config = small_config()
    for key, value in change.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    with pytest.raises(ConfigError, match=message):
        load(config)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "mine.csv: a header and rows are needed, found an empty file"),
        ("a,b,y\n" + "1,2,up\n" * 30, "the target 'y' has 1 value"),
    ],
)
def test_bad_tables_end_in_one_message(tmp_path, text, message):
    copy = Copy(tmp_path / "bad", small_config())
    write_table(copy.folder / "other.csv", 60, 1, ("b", "c", "y"))
    assert "tabular.datasets.mine: there is no file mine.csv" in copy.snakemake("-n", fails=True)
    (copy.folder / "mine.csv").write_text(text)
    output = copy.snakemake("runs/rows/datasets/mine/schema.json", fails=True)
    assert message in output and "Traceback" not in output.split("RuleException")[0]
