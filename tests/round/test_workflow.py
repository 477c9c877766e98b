"""Test what reruns when something changes, and what does not: real Snakemake on a finished round of a tiny model."""

import os
import re
import shutil

import pandas as pd
import pytest

from tests.harness import NOTHING_TO_DO, Copy, edit_prompts, in_ledger, jobs, outputs, tiny_config
from workflow_scripts.core.identity import shard_of

TARGET = "round1_checkpoint"
AFTER_TRAINING = {"generate_eval", "grade", "evaluate", TARGET}


def test_a_fresh_clone_lists_what_is_pending_and_why(tmp_path):
    output = Copy(tmp_path / "fresh").snakemake("-n", "round3_checkpoint")

    assert jobs(output) >= {"freeze_prompts", "cold_start", "generate", "grade", "construct_meta", "logp", "train"}
    assert "reason: Missing output files" in output


def test_nothing_is_to_be_done_after_touches_and_comments(fork):
    for path in [*fork.path("").rglob("*"), *(fork.folder / "workflow_scripts").rglob("*.py")]:
        if path.is_file():
            os.utime(path)
    for name in ("training/objectives/clip.py", "tasks/math/grading.py", "grade.py"):
        with open(fork.folder / "workflow_scripts" / name, "a") as file:
            file.write("\n# a comment\n")

    assert NOTHING_TO_DO in fork.snakemake("-n", TARGET)


@pytest.mark.long
def test_a_run_that_was_copied_without_times_and_records_is_adopted(finished, tmp_path):
    moved = Copy(tmp_path / "moved", tiny_config())
    shutil.copytree(finished.folder / "runs", moved.folder / "runs", copy_function=shutil.copyfile)
    for path in moved.path("prompts").rglob("*"):
        os.utime(path)  # inputs are newer than what was made from them
    assert "train" in jobs(moved.snakemake("-n", TARGET))

    moved.snakemake("verify")
    moved.snakemake("--touch", "--forceall", TARGET)
    assert NOTHING_TO_DO in moved.snakemake("-n", TARGET)
    assert jobs(moved.snakemake("-n", TARGET, "--config", "train={lr: 5e-4}")) == {"train", *AFTER_TRAINING}


@pytest.mark.long
def test_a_run_that_was_copied_with_times_and_without_records_is_adopted(finished, tmp_path):
    moved = Copy(tmp_path / "moved", tiny_config())
    shutil.copytree(finished.folder / "runs", moved.folder / "runs", copy_function=shutil.copy2)
    assert NOTHING_TO_DO in moved.snakemake("-n", TARGET)

    moved.snakemake("--touch", "--forceall", TARGET)
    assert jobs(moved.snakemake("-n", TARGET, "--config", "train={lr: 5e-4}")) == {"train", *AFTER_TRAINING}


# ---------------------------------------------------------------- prompts


def test_an_edited_prompt_reruns_its_shard_and_in_it_one_record(fork):
    edited = pd.read_parquet(fork.path("prompts/train.parquet"))["id"][3]
    shard = shard_of(edited, 2)

    def change(frame):
        frame.loc[3, "question"] = "What is 8 + 9?"
        frame.loc[3, "reference"] = "17"
        return frame

    edit_prompts(fork, change)
    output = fork.snakemake("-n", TARGET)
    assert sorted(outputs(output, "generate")) == [
        f"runs/arithmetic/results/r1/{version}/2_{shard}.pkl" for version in ("auto", "trigger")
    ]
    assert f"Updated input files: runs/arithmetic/prompts/shards/train/2_{shard}.txt" in output
    assert "freeze_prompts" not in jobs(output)

    verified = fork.snakemake("verify", fails=True)
    assert "round 1: stale" in verified
    assert f"shards/train/2_{shard}.txt changed since" in verified
    assert "round 0: sound" in verified

    fork.snakemake(f"runs/arithmetic/results/r1/auto/2_{shard}.pkl")
    done, total = in_ledger(fork.path(f"logs/generate/r1_auto_2_{shard}.log").read_text())
    assert total - done == 4  # one prompt, four samples


def test_deleted_and_added_prompts_rerun_only_their_shards(fork):
    frame = pd.read_parquet(fork.path("prompts/train.parquet"))
    deleted = frame["id"][0]
    edit_prompts(fork, lambda f: f.drop(index=0))
    output = fork.snakemake("-n", TARGET)
    assert {path[-5] for path in outputs(output, "generate")} == {str(shard_of(deleted, 2))}

    added = next(f"new{i}" for i in range(9) if shard_of(f"new{i}", 2) != shard_of(deleted, 2))
    row = {"id": added, "question": "What is 2 + 2?", "reference": "4", "level": "one_digit"}
    edit_prompts(fork, lambda _: pd.concat([frame, pd.DataFrame([row])], ignore_index=True))
    output = fork.snakemake("-n", TARGET)
    assert {path[-5] for path in outputs(output, "generate")} == {str(shard_of(added, 2))}


def test_a_reverted_edit_leaves_nothing_to_do(fork):
    original = fork.path("prompts/train.parquet").read_bytes()

    edit_prompts(fork, lambda frame: frame.drop(index=0))
    assert NOTHING_TO_DO not in fork.snakemake("-n", TARGET)

    fork.path("prompts/train.parquet").write_bytes(original)
    assert NOTHING_TO_DO in fork.snakemake("-n", TARGET)


# ---------------------------------------------------------------- the config


def test_a_changed_learning_rate_reruns_training_and_what_follows(fork):
    config = tiny_config()
    config["train"]["lr"] = 1e-5
    fork.configure(config)
    output = fork.snakemake("-n", TARGET)

    assert jobs(output) == {"train"} | AFTER_TRAINING
    assert re.search(r"train\.lr: \S+ → 1e-0?5", output)  # the reason says what changed


def test_a_changed_switch_of_the_task_reruns_selection_and_what_follows(fork):
    fork.configure(tiny_config(math={"switches": ["all"]}))
    output = fork.snakemake("-n", TARGET)

    assert {"construct_data", "logp", "train"} <= jobs(output)
    assert not {"generate", "construct_meta", "cold_start"} & jobs(output)


def test_how_an_engine_is_started_reruns_nothing(fork):
    endpoint = {
        "base_url": "http://127.0.0.1:9/v1",
        "model": "none",
        "budget": 1,
        "prices": {"input": 1, "cached": 1, "output": 1},
    }
    config = tiny_config(python={"vllm": "/nowhere/python"})
    config["generate"] |= {"gpus": 1, "openai": endpoint}
    fork.configure(config)

    assert NOTHING_TO_DO in fork.snakemake("-n", TARGET)


@pytest.mark.long
def test_two_replicas_of_the_model_answer_as_one(fork, finished, monkeypatch):
    """Each is on a (pretended) GPU of its own. The number of GPUs is no parameter, so nothing reruns for it alone."""
    config = tiny_config()
    config["generate"]["gpus"] = 2
    fork.configure(config)
    assert NOTHING_TO_DO in fork.snakemake("-n", TARGET)

    shutil.rmtree(fork.path("ledger/generate"))
    name = "results/r1/auto/2_0.pkl"
    fork.path(name).unlink()
    monkeypatch.setenv("LOCAL_GPUS", "0,1")
    fork.snakemake(f"runs/arithmetic/{name}")

    assert fork.path(name).read_bytes() == finished.path(name).read_bytes()
    assert len(list(fork.path("ledger/generate/r1/auto").glob("2_0.*.jsonl"))) == 2


def test_more_samples_generate_only_the_new_ones(fork):
    config = tiny_config()
    config["generate"]["auto"]["samples"] = 5
    fork.configure(config)
    fork.snakemake("runs/arithmetic/results/r1/auto/2_0.pkl")

    done, total = in_ledger(fork.path("logs/generate/r1_auto_2_0.log").read_text())
    assert done * 5 == total * 4


# ---------------------------------------------------------------- code


def test_a_changed_comparison_grades_again_without_generating(fork):
    fork.edit("workflow_scripts/tasks/math/equality.py", "integers[0] == integers[1]", "integers[0] >= integers[1]")
    output = fork.snakemake("-n", TARGET)

    assert {"grade", "construct_meta", "construct_data", "logp", "train", "evaluate"} <= jobs(output)
    assert not {"generate", "cold_start", "construct_sft", "init_model", "freeze_prompts"} & jobs(output)
    summary = output.split("Code changed since", 1)[1]
    assert "  grade: workflow_scripts/tasks/math/equality.py: decided\n" in summary


def test_a_changed_objective_reruns_the_training_that_uses_it(fork):
    fork.edit("workflow_scripts/training/objectives/clip.py", "ratio = tokens", "ratio = 1.0 * tokens")
    output = fork.snakemake("-n", TARGET)

    assert jobs(output) == {"train"} | AFTER_TRAINING
    summary = output.split("Code changed since", 1)[1]
    assert "  train: workflow_scripts/training/objectives/clip.py: loss\n" in summary


def test_a_changed_trainer_reruns_all_training_and_what_follows(fork):
    fork.edit("workflow_scripts/training/bins.py", "flat[kept + 1]", "flat[1 + kept]")
    output = fork.snakemake("-n", TARGET)

    assert {"cold_start", "generate", "logp", "train"} <= jobs(output)
    assert not {"init_model", "construct_sft", "freeze_prompts"} & jobs(output)
    assert "workflow_scripts/training/bins.py: collate" in output.split("Code changed since", 1)[1]


def test_a_changed_stage_is_run_again_with_consent(fork):
    """The stage's own file counts as much as what it imports."""
    fork.edit("workflow_scripts/construct_meta.py", 'settings = {"dedup"', 'settings = {"own": 1, "dedup"')
    meta = "meta/r1_auto_q2responses_arithmetic"
    before = fork.path(f"{meta}.pkl").read_bytes()

    fork.snakemake(f"runs/arithmetic/{meta}.pkl", "--config", "code_changes=remake")

    assert fork.path(f"{meta}.pkl").read_bytes() == before
    assert '"own": 1' in fork.path(f"{meta}.json").read_text()


def test_an_unused_engine_objective_or_task_reruns_nothing(fork):
    scripts = fork.folder / "workflow_scripts"
    (scripts / "tasks/other.py").write_text('"""A task that nobody uses."""\n')
    for name in ("training/objectives/dpo.py", "engines/vllm.py", "tasks/code/grading.py"):
        with open(scripts / name, "a") as file:
            file.write("\n\nCHANGED = True\n")

    assert NOTHING_TO_DO in fork.snakemake("-n", TARGET)
