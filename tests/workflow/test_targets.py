"""Names of targets: which stages a round has, what they ask for, and what is said of a name that is none."""

import re

import pytest
import yaml
from snakemake.exceptions import WorkflowError

from tests.harness import REPOSITORY, tiny_config
from workflow_scripts import tasks
from workflow_scripts.config.layout import Run
from workflow_scripts.config.load import load
from workflow_scripts.workflow.targets import Targets

ROWS = {"tag": "x", "source": {"file": "rows.jsonl", "format": "sft"}}


def targets(config: dict, *on_command_line: str) -> Targets:
    """Return the targets of a config."""
    cfg = load(config)
    run = Run(cfg)
    return Targets(cfg, run, tasks.part_class(cfg.task, "Wing")(cfg, run), list(on_command_line))


def existing_rows(**train) -> dict:
    """Return the tiny config on rows that exist."""
    config = tiny_config(data=ROWS)
    config["prompts"] = {"eval": config["prompts"]["eval"]}
    config["train"] |= train
    return config


def test_the_stages_of_a_round_are_those_that_the_config_gives_it():
    names = targets(tiny_config(rounds=2)).by_name()

    stages = [name.removeprefix("round2_") for name in names if name.startswith("round2_")]
    assert stages == ["results", "graded", "meta", "data", "logp", "checkpoint", "evaluation", "publish"]
    assert [name for name in names if name.startswith("round0_")] == [
        "round0_data",
        "round0_checkpoint",
        "round0_evaluation",
        "round0_publish",
    ]
    assert names["round2_meta"] == [
        "runs/arithmetic/meta/r2_auto_q2responses_arithmetic.pkl",
        "runs/arithmetic/meta/r2_trigger_q2responses_arithmetic.pkl",
    ]
    assert len(names["round2_results"]) == 4  # two versions in two shards
    assert not any("matchlog" in path for path in names["round2_results"])
    assert all("matchlog" in path for path in names["round2_graded"])


def test_rounds_beyond_the_config_have_targets_when_they_are_named():
    assert "round7_data" not in targets(tiny_config()).by_name()
    assert "round7_logp" in targets(tiny_config(), "round7_data").by_name()


@pytest.mark.parametrize(
    ("train", "folders"),
    [
        ({}, {"offline_small_r2_arithmetic_logp"}),
        ({"objective": "sft"}, {"offline_small_r2_arithmetic_logp"}),  # asked for by name, although not needed
        ({"kl": 0.1}, {"offline_small_r2_arithmetic_logp", "offline_small_r2_arithmetic_ref_logp"}),
        ({"kl": 0.1, "reference": "previous"}, {"offline_small_r2_arithmetic_logp"}),
    ],
    ids=["behaviour", "not_needed", "reference", "previous"],
)
def test_the_log_probs_of_a_round_include_those_under_the_reference(train, folders):
    config = tiny_config(rounds=2)
    config["train"] |= train
    paths = targets(config).by_name()["round2_logp"]

    assert {path.split("/")[-2] for path in paths} == folders
    assert len(paths) == 2 * len(folders)


def test_existing_rows_have_no_answers():
    names = targets(existing_rows(objective="sft")).by_name()

    assert [name for name in names if name.startswith("round1_")] == [
        "round1_data",
        "round1_logp",
        "round1_checkpoint",
        "round1_evaluation",
        "round1_publish",
    ]
    assert names["round1_data"] == ["runs/arithmetic/data/rows.jsonl_x.pkl"]


@pytest.mark.parametrize(
    ("recipe", "n", "stages"),
    [
        ("tabular-tiny", 1, {"raw", "csv", "sft_fed", "score", "dpo"}),
        ("tabular-tiny", 0, {"examples", "sft_fed", "anchors"}),
        ("reference", 0, {"scores", "prompts"}),
    ],
)
def test_tasks_add_stages_of_their_own(recipe, n, stages):
    config = yaml.safe_load((REPOSITORY / f"recipes/{recipe}.yaml").read_text())
    names = targets(config).by_name()

    assert {f"round{n}_{stage}" for stage in stages} <= names.keys()


# ---------------------------------------------------------------- names that are none


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("round2_dat", "there is no target 'round2_dat'; did you mean 'round2_data'?"),
        ("roun3_checkpoint", "did you mean 'round3_checkpoint'?"),
        ("round01_meta", "did you mean 'round1_meta'?"),
        ("round_checkpoint", "did you mean 'round1_checkpoint'?"),
        ("round2_zzz", "with the stages results, graded, meta, data, logp, checkpoint, evaluation, publish;"),
        ("verfy", "did you mean 'verify'?"),
        ("round0_meta", "round 0 has no meta: it has data, checkpoint, evaluation, publish"),
    ],
)
def test_a_wrong_name_gets_the_list_and_the_nearest_name(name, message):
    with pytest.raises(WorkflowError, match=re.escape(message)):
        targets(tiny_config(), name).check()


def test_a_stage_that_existing_rows_skip_is_explained():
    with pytest.raises(
        WorkflowError,
        match=re.escape("round 2 has no meta: it starts from existing files (config key data.source); it has data"),
    ):
        targets(existing_rows(objective="sft"), "round2_meta").check()


def test_names_of_rules_and_files_are_left_to_snakemake():
    rules = "\n".join(path.read_text() for path in REPOSITORY.glob("rules/**/*.smk"))
    names = set(re.findall(r"^ *(?:use )?rule (\w+)(?: as (\w+))?", rules, re.M))
    names = {alias or name for name, alias in names}
    assert len(names) > 30

    targets(tiny_config(), *names, "runs/arithmetic/data/offline_small_r1_arithmetic.pkl").check()


def test_a_schedule_ends_with_the_training_of_its_last_round():
    config = tiny_config()
    config["train"] |= {"schedule_over": "rounds", "updates_per_round": 4}

    targets(config, "round2_data").check()  # it needs the checkpoint of round 1
    for name in ("round2_evaluation", "round3_results"):
        with pytest.raises(WorkflowError, match="so there is no round 2"):
            targets(config, name).check()


def test_the_table_of_rounds_follows_trainings_only():
    assert targets(tiny_config(), "round1_evaluation").end_with_report()
    assert targets(tiny_config()).end_with_report()
    assert not targets(tiny_config(), "round2_data").end_with_report()
    assert not targets(tiny_config(), "verify").end_with_report()
