"""The tabular recipe as the workflow runs it: a round on CSV files, what it leaves, and what it refuses."""

import csv
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.harness import NOTHING_TO_DO, REPOSITORY, Copy, jobs
from workflow_scripts.config.layout import Run
from workflow_scripts.config.load import ConfigError, load
from workflow_scripts.core.files import read_json
from workflow_scripts.core.pickles import read_pickle
from workflow_scripts.core.records import read_records
from workflow_scripts.tasks.tabular.extraction import STATUSES
from workflow_scripts.tasks.tabular.tables import fold_of
from workflow_scripts.tasks.tabular.wing import Wing

RUN = "runs/rows"


def write_table(path: Path, count: int, seed: int, names: tuple[str, ...] = ("a", "b", "y")) -> None:
    """Write a table of two numbers with two digits, and whether the first is the larger one."""
    rng = random.Random(seed)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for _ in range(count):
            a, b = rng.randint(10, 99), rng.randint(10, 99)
            writer.writerow([a, b, "up" if a > b else "no"])


def small_config() -> dict[str, Any]:
    """Return a config on two CSV files, with a model and numbers that take seconds."""
    training = {"lr": 3e-3, "adam_beta2": 0.98, "batch_size": 16, "threads": 1, "schedule": "linear"}
    return {
        "name": "rows",
        "task": "tabular",
        "rounds": 1,
        "shards": 1,
        "tabular": {
            "dataset": "mine",
            "datasets": {"mine": {"file": "mine.csv"}, "other": {"file": "other.csv"}},
            "examples": 1200,
            "own_share": 0.5,
            "num_clusters": 4,
            "shots": 1,
            "clients": 2,
            "fed_rounds": 2,
            "held_out": 0.2,
            "merge": {"method": "linear"},
            "train": training,
            "pairs": 30,
        },
        "model": {"scratch": {"layers": 2, "width": 64, "heads": 2, "mlp_width": 128, "vocabulary": 400}},
        "cold_start": {"train": training},
        "generate": {
            "trigger": None,
            "auto": {"samples": 4, "max_tokens": 40, "turns": 1},
            "eval": {"samples": 4, "temperature": 1.0, "max_tokens": 40, "turns": 1},
        },
        "data": {"tag": "pairs"},
        "train": {"objective": "dpo", "lr": 1e-4, "batch_size": 16, "threads": 1},
    }


# ---------------------------------------------------------------- a finished round


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Copy:
    copy = Copy(tmp_path_factory.mktemp("tabular"), small_config())
    write_table(copy.folder / "mine.csv", 90, 0)
    write_table(copy.folder / "other.csv", 60, 1, ("b", "c", "y"))
    copy.snakemake("round1_checkpoint")
    return copy


@pytest.fixture
def fork(done, tmp_path) -> Copy:
    """Return a copy of the finished round, to be changed at will."""
    shutil.copytree(done.folder, tmp_path / "fork", symlinks=True)
    return Copy.at(tmp_path / "fork")


LEFT = (
    "datasets/mine/schema.json",
    "syn_datasets/sft_syn_mine/alpaca_train.json",
    "syn_datasets/sft_syn_mine/dataset/dataset_dict.json",
    "score_anchors/mine_anchors.csv",
    "syned_datasets/original_0_sft_fed/mine_client_1.test.jsonl",
    "syned_datasets/original_0_sft_fed/mine_client_0.val.jsonl",
    "syned_datasets/r1_sft_fed/mine_client_1.train_0.jsonl",
    "r1_raw/mine.raw.jsonl",
    "r1_csv/mine.train.csv",
    "r1_score/mine.score.jsonl",
    "r1_dpo/mine.pref.jsonl",
    "checkpoints/task_r1_0_t2_client_1/checkpoint.json",
    "checkpoints/merged_r1_0/checkpoint.json",
    "evaluation/task_r1_1.json",
    "checkpoints/r1/checkpoint.json",
    "report/table_r0.svg",
    "report/table_r1.svg",
)


@pytest.mark.slow
def test_a_round_leaves_the_originals_folders(done):
    run = done.folder / RUN
    assert [name for name in LEFT if not (run / name).exists()] == []

    metrics = read_json(run / "evaluation/r1.json")
    assert set(metrics) >= {"valid", "statuses", "tstr", "real", "bootstrap", "copies", "columns", "by_model"}
    assert set(metrics["statuses"]) == set(STATUSES)
    assert sum(metrics["statuses"].values()) == pytest.approx(1)
    assert f"{RUN}/datasets/mine/test.csv" in metrics["inputs"]

    inputs = read_json(run / "r1_csv/mine.train.json")["inputs"]
    assert set(inputs) == {f"{RUN}/r1_raw/mine.raw.jsonl", f"{RUN}/datasets/mine/schema.json"}
    assert "round 1: sound" in done.snakemake("verify")
    assert NOTHING_TO_DO in done.snakemake("-n", "round1_checkpoint")


@pytest.mark.slow
def test_prompts_and_anchors_are_training_rows(done):
    run = done.folder / RUN
    test = {tuple(row.values()) for row in read_records(run / "datasets/mine/test.csv")}
    train = [tuple(row.values()) for row in read_records(run / "datasets/mine/train.csv")]
    assert test
    assert not test & set(train)

    for prompt in read_records(run / "prompts/train.parquet"):
        lines = [json.loads(line) for line in prompt["question"].splitlines() if line.startswith("{")]
        shown = [tuple(map(str, row.values())) for row in lines]
        assert shown == [train[number] for number in prompt["examples"]]
        assert len(shown) == 5

    anchors = {tuple(row.values()) for row in read_records(run / "score_anchors/mine_anchors.csv")}
    assert anchors <= set(train)


@pytest.mark.slow
def test_each_row_is_scored_by_a_model_that_did_not_train_on_it(done):
    run = done.folder / RUN
    scored = [line for line in read_records(run / "r1_score/mine.score.jsonl") if line["score"] is not None]
    assert scored
    for line in scored:
        assert line["score"] == pytest.approx(line["ds1"]["score"] - line["ds0"]["score"])

    for fold in (0, 1):
        texts: dict[bool, set[str]] = {True: set(), False: set()}  # of the rows in this fold, and of the others
        for line in scored:
            features = json.dumps({name: line["row"][name] for name in ("a", "b")})
            texts[fold_of(line["row"]) == fold].add(features)

        learnt = set()
        for client in (0, 1):
            path = run / f"syned_datasets/r1_sft_fed/mine_client_{client}.train_{fold}.jsonl"
            learnt |= {question["prompt"].splitlines()[-1] for question in read_records(path)}
        assert learnt
        assert learnt <= texts[False]
        assert not (texts[True] - texts[False]) & learnt


@pytest.mark.slow
def test_clients_learn_from_their_own_rows_and_are_merged(done):
    run = done.folder / RUN
    names = ["r0_all_t1_client_0", "r0_all_t1_client_1", "r0_all_t1", "r0_all_t2_client_0", "r0_all_t2"]
    manifests = {name: read_json(run / f"checkpoints/task_{name}/checkpoint.json") for name in names}
    assert len({manifest["digest"] for manifest in manifests.values()}) == len(names)

    of_clients = [manifests[f"r0_all_t1_client_{client}"]["rows"] for client in (0, 1)]
    assert manifests["r0_all_t1"]["rows"] == sum(of_clients)
    assert set(manifests["r0_all_t1"]["inputs"]) == {
        f"{RUN}/checkpoints/{name}/checkpoint.json"
        for name in ("init", "task_r0_all_t1_client_0", "task_r0_all_t1_client_1")
    }
    assert f"{RUN}/checkpoints/task_r0_all_t1/checkpoint.json" in manifests["r0_all_t2_client_0"]["inputs"]
    assert (
        f"{RUN}/checkpoints/task_r0_all_t2/checkpoint.json" in read_json(run / "evaluation/task_r0_all.json")["inputs"]
    )

    metrics = read_json(run / "evaluation/task_r0_all.json")
    assert set(metrics["models"]) == {"merged", "client_0", "client_1"}
    assert metrics["signal_low"] <= metrics["signal"] <= metrics["signal_high"]
    held_out = sum(1 for client in (0, 1) for _ in read_records(run / CHECKS.format(client)))
    assert metrics["models"]["merged"]["held_out"]["n"] == held_out > 0


CHECKS = "syned_datasets/original_0_sft_fed/mine_client_{}.val.jsonl"


@pytest.mark.slow
def test_pairs_are_of_one_prompt_and_keep_the_tokens_as_sampled(done):
    run = done.folder / RUN
    rows = read_pickle(run / "data/offline_pairs_r1_rows.pkl")
    answers = {answer["uid"]: answer for answer in read_pickle(run / "results/r1/auto/1_0_matchlog.pkl")}

    for chosen, rejected in zip(rows[::2], rows[1::2], strict=True):
        better = answers[chosen["source"]]
        worse = answers[rejected["source"]]
        assert better["id"] == worse["id"] == chosen["prompt_id"] == rejected["prompt_id"]
        assert STATUSES[better["status"]] >= STATUSES[worse["status"]]
        assert chosen["tokens"] == better["tokens"]
        assert rejected["tokens"] == worse["tokens"]

    exported = list(read_records(run / "r1_dpo/mine.pref.jsonl"))
    assert len(exported) == len(rows) // 2 <= 30
    assert exported[0]["chosen"][0] == exported[0]["rejected"][0]
    assert exported[0]["chosen"][1] == {"role": "assistant", "content": rows[0]["answer"]}


@pytest.mark.slow
def test_a_changed_pair_count_keeps_the_answers_and_their_scores(fork):
    listed = jobs(fork.snakemake("-n", "round1_checkpoint", "--config", "tabular={pairs: 20}"))
    assert "construct_data" in listed
    assert not listed & {"addscore", "generate", "construct_meta"}


@pytest.mark.slow
def test_changed_numbers_of_the_task_model_keep_prompts_and_answers(fork):
    listed = jobs(fork.snakemake("-n", "round1_checkpoint", "--config", "tabular={alpha: 0.9}"))
    assert {"gen_sftfed", "gen_sftfed_train", "train_task", "addscore"} <= listed
    assert not listed & {"gen_synsft", "gen_scoreanchors", "cold_start", "generate", "construct_meta"}


@pytest.mark.slow
def test_a_changed_comparison_in_grading_grades_again_without_generating_for_it(fork):
    edit = ("max(counts.values(), default=0) > 1", "max(counts.values(), default=0) > 2")
    fork.edit("workflow_scripts/tasks/tabular/extraction.py", *edit)
    listed = jobs(fork.snakemake("-n", "round1_checkpoint"))
    follows = {"grade", "construct_meta", "syn_addprompt", "addscore", "construct_data", "evaluate", "plot_tables"}
    assert follows <= listed
    assert not listed & {"split_tables", "gen_synsft", "gen_scoreanchors", "freeze_prompts", "cold_start", "generate"}


# ---------------------------------------------------------------- configs


@pytest.mark.parametrize("recipe", ["tabular", "tabular-tiny"])
def test_recipes_are_valid(recipe):
    cfg = load(yaml.safe_load((REPOSITORY / f"recipes/{recipe}.yaml").read_text()))
    folder = f"runs/{cfg.name}/syn_datasets/sft_syn_{'-'.join(cfg.task_section.tables)}"
    assert cfg.task_section.pairs * len(cfg.task_section.targets or ["one"]) == 1000
    assert cfg.learns_from_pairs
    assert cfg.prompts.train.file == f"{folder}/train.jsonl"
    assert cfg.cold_start.file == f"{folder}/alpaca_train.json"


def wing_of(**tabular) -> Wing:
    config = small_config()
    config["tabular"] |= {"clients": 1, "fed_rounds": 1, "held_out": 0.0, **tabular}
    cfg = load(config)
    return Wing(cfg, Run(cfg))


TWO = {"dataset": None, "targets": ["mine", "other"]}


def test_names_of_a_run_of_one_table_and_one_client():
    wing = wing_of()
    assert wing.task_model(1, "0", "mine") == f"{RUN}/checkpoints/merged_r1_0/checkpoint.json"
    assert wing.trained_task_model(1, "0", "mine") == f"{RUN}/checkpoints/task_r1_0/checkpoint.json"
    assert wing.task_data(1, "0", "mine") == [f"{RUN}/syned_datasets/r1_sft_fed/mine_fold_0.jsonl"]
    assert wing.files("grade") == {"schema": f"{RUN}/datasets/mine/schema.json"}
    assert wing.examples == f"{RUN}/syn_datasets/sft_syn_mine"
    assert [path for path in wing.products(1) if "task_" in path] == []


def test_several_tables_have_task_models_of_their_own():
    wing = wing_of(**TWO)
    assert wing.task_model(0, "all", "other") == f"{RUN}/checkpoints/task_other_r0_all/checkpoint.json"
    assert wing.task_model(2, "1", "mine") == f"{RUN}/checkpoints/merged_mine_r2_1/checkpoint.json"
    assert set(wing.files("construct_data")) == {"scores.mine", "prompts.mine", "scores.other", "prompts.other"}
    assert wing.examples == f"{RUN}/syn_datasets/sft_syn_mine-other"
    assert wing.table_of("other_") == "other"


def test_several_tables_can_share_a_task_model_that_is_merged_of_theirs():
    wing = wing_of(**TWO, shared_task_model=True)
    assert wing.trained_task_model(1, "0", "mine") == wing.trained_task_model(1, "0", "other")
    assert wing.merged_clients(0, "all", 1, "") == [
        f"{RUN}/checkpoints/task_{table}_r0_all_t1_client_0/checkpoint.json" for table in ("mine", "other")
    ]
    assert wing.task_start(1, "0", "other") == f"{RUN}/checkpoints/task_r0_all_t1/checkpoint.json"


def test_a_task_model_that_exists_scores_all_rounds():
    wing = wing_of(task_model="some/model", merge=None, held_out=0.25, min_signal=0.1)
    assert wing.task_model(0, "all", "mine") == wing.task_model(3, "1", "mine") == wing.existing_task_model
    assert set(wing.files("construct_data")) == {"scores", "prompts", "signal_0"}
    assert len([path for path in wing.products(2) if "/task_" in path]) == 2


def test_files_that_the_config_names_stay():
    config = small_config()
    config["prompts"] = {"train": {"file": "mine.jsonl", "limit": 5}}
    cfg = load(config)
    assert (cfg.prompts.train.file, cfg.prompts.train.limit) == ("mine.jsonl", 5)
    assert cfg.prompts.eval.file == "runs/rows/syn_datasets/sft_syn_mine/eval.jsonl"

    del config["cold_start"]
    config["model"] = {"path": "some/model"}
    assert load(config).cold_start is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tabular": {"dataset": "yours"}}, "dataset: 'yours' is not one of `datasets`: mine"),
        ({"tabular": {"examples": None}}, r"own_share: 0\.5 is a share of `examples`"),
        ({"tabular": {"datasets": {"mine": {"file": "a.csv", "sklearn": "iris"}}}}, "both are given"),
        ({"tabular": {"datasets": {"mine": {"train": "a.csv"}}}}, "`train` and `test` belong together"),
        ({"tabular": {"datasets": {"mine": {"file": "a.csv", "val": "b.csv"}}}}, "`val` belongs to `train` and `test`"),
        ({"tabular": {"targets": ["other"]}}, "give either `dataset` or `targets`; both are given"),
        ({"tabular": {"dataset": None, "targets": ["mine", "mine"]}}, "name at least one data set, and each once"),
        ({"tabular": {"dataset": None, "targets": ["yours"]}}, "targets: 'yours' is not one of `datasets`: mine"),
        ({"tabular": {"held_out": 0, "min_signal": 0.2}}, "min_signal: it is measured on held-out rows"),
        ({"tabular": {"task_model": "some/model"}}, "task_model: a task model that exists is not trained"),
        ({"tabular": {"shared_task_model": True}}, "shared_task_model: it is shared by several `targets`"),
        ({"tabular": {"num_cluster": 3}}, "did you mean 'num_clusters'"),
        ({"tabular": None}, "tabular: "),
        ({"task": "math"}, "tabular: .* this section belongs to task tabular, but the task is math"),
        ({"train": {"objective": "clip"}}, "objective clip: .* but the rounds' data are preference pairs"),
        ({"generate": {"trigger": {"samples": 1}}}, "generate.trigger: task 'tabular' asks in one way only"),
        ({"data": {"data_filter": "posonly"}}, "data_filter posonly: preference pairs need their rejected answers"),
        ({"results": {1: {"auto": ["a.pkl"]}}}, "results: task 'tabular' cannot read answers from files"),
        ({"cold_start": {"count": {"a": 5}}}, "cold_start.count: task 'tabular' cannot make up questions"),
        ({"prompts": {"train": {"count": {"a": 5}}}}, "prompts.train.count: task 'tabular' cannot make up questions"),
    ],
)
def test_configs_that_cannot_work(change, message):
    config = small_config()
    for key, value in change.items():
        config[key] = {**config.get(key, {}), **value} if isinstance(value, dict) else value
    with pytest.raises(ConfigError, match=message):
        load(config)


def test_the_section_is_required():
    config = small_config()
    del config["tabular"]
    with pytest.raises(ConfigError, match="tabular: this key is required"):
        load(config)


# ---------------------------------------------------------------- tables that cannot be used


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "mine.csv: a table needs a header and rows, found an empty file"),
        ("a,b,y\n" + "1,2,up\n" * 30, "the target 'y' has 1 value"),
    ],
)
def test_bad_tables_end_in_one_message(tmp_path, text, message):
    copy = Copy(tmp_path / "bad", small_config())
    write_table(copy.folder / "other.csv", 60, 1, ("b", "c", "y"))
    assert "tabular.datasets.mine.file: there is no file mine.csv" in copy.snakemake("-n", fails=True)

    (copy.folder / "mine.csv").write_text(text)
    output = copy.snakemake(f"{RUN}/datasets/mine/schema.json", fails=True)
    assert message in output
    assert "Traceback" not in output.split("RuleException")[0]
