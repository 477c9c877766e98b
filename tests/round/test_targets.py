"""Targets, profiles and recipes, and what is said of a mistyped one."""

import json

from tests.harness import REPOSITORY, Copy, jobs, tiny_config


def test_mistyped_targets_and_keys_get_a_hint(tmp_path):
    copy = Copy(tmp_path / "typo")

    assert "did you mean 'round3_checkpoint'?" in copy.snakemake("-n", "roun3_checkpoint", fails=True)
    output = copy.snakemake("-n", "round1_checkpoint", "--config", "sede=3", fails=True)
    assert "config: sede: there is no such key; did you mean 'seed'?" in output
    assert "rehearsal.py" not in output  # the frames of our own code tell a user nothing


def test_any_round_is_a_target(tmp_path):
    assert "round7_checkpoint" in Copy(tmp_path / "far").snakemake("-n", "round7_checkpoint")


def test_a_stage_of_a_round_is_a_target(tmp_path):
    copy = Copy(tmp_path / "stages", tiny_config())

    pending = jobs(copy.snakemake("-n", "round1_meta"))
    assert {"generate", "grade", "construct_meta", "round1_meta"} <= pending
    assert not {"construct_data", "logp", "train"} & pending
    assert {"round1_logp", "rehearse", "verify"} <= set(copy.snakemake("--list-target-rules").splitlines())
    assert "did you mean 'round2_data'?" in copy.snakemake("-n", "round2_dat", fails=True)


def test_a_schedule_over_all_rounds_has_an_end(tmp_path):
    config = tiny_config()
    config["train"] |= {"schedule_over": "rounds", "updates_per_round": 4}
    copy = Copy(tmp_path / "schedule", config)

    assert "--rounds 1" in copy.snakemake("-n", "-p", "round1_checkpoint")
    assert "the schedule ends with round 1" in copy.snakemake("-n", "round2_checkpoint", fails=True)


def test_a_missing_file_is_named_with_its_key(tmp_path):
    config = tiny_config()
    config["prompts"]["train"] = {"file": "none.jsonl"}
    output = Copy(tmp_path / "missing", config).snakemake("-n", "round1_checkpoint", fails=True)

    assert "config: prompts.train.file: there is no file none.jsonl" in output


def test_a_recipe_is_complete_in_itself(tmp_path):
    copy = Copy(tmp_path / "recipe")
    (copy.folder / "data").mkdir()
    seed = {"q": "1 + 1?", "a": "It is 2.", "s": "MetaMath", "gold": "2"}
    (copy.folder / "data/autocode_seed.json").write_text(json.dumps([seed]))
    (copy.folder / "data/MATH.json").write_text(json.dumps([{"question": "1 + 2?", "answer": "3"}]))
    (copy.folder / "data/gsm8k.jsonl").write_text(json.dumps({"question": "1 + 3?", "answer": "#### 4"}))

    output = copy.snakemake("-n", "round2_checkpoint", "--configfile", "recipes/math.yaml", "--config", "shards=3")
    assert "runs/math/results/r2/auto/3_2.pkl" in output
    assert "arithmetic" not in output


def test_with_a_recipe_config_yaml_is_not_read(tmp_path):
    copy = Copy(tmp_path / "recipe")
    partial = tmp_path / "partial.yaml"
    partial.write_text("name: partial\ntask: math\n")
    output = copy.snakemake("-n", "round1_checkpoint", "--configfile", str(partial), fails=True)

    assert "config: model: this key is required" in output


def test_the_profiles_are_found_by_their_names():
    for name in ("slurm", "local"):
        assert (REPOSITORY / name).resolve() == (REPOSITORY / "profiles" / name).resolve()
