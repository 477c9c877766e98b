"""A finished round of the task `reference`, and what an edit of its grading makes again."""

import pytest

from tests.harness import NOTHING_TO_DO, Copy, jobs

TARGET = "round1_checkpoint"


@pytest.mark.slow
def test_an_edited_grader_grades_again_and_generates_nothing_for_it(tmp_path):
    config = {
        "name": "mine",
        "task": "reference",
        "rounds": 1,
        "reward": "bleu",
        "shards": 1,
        "prompts": {"train": {"count": {"greet": 6}}, "eval": {"count": {"greet": 3}}},
        "model": {"scratch": {"layers": 1, "width": 32, "heads": 2, "mlp_width": 64, "vocabulary": 300}},
        "cold_start": {"count": {"greet": 256}, "train": {"lr": 1e-2, "batch_size": 16, "threads": 1}},
        "generate": {
            "trigger": None,
            "auto": {"samples": 4, "max_tokens": 16, "turns": 1},
            "eval": {"samples": 1, "temperature": 0, "max_tokens": 16, "turns": 1},
        },
        "data": {"advantage": "group_std"},
        "train": {"batch_size": 8, "threads": 1},
    }
    copy = Copy(tmp_path, config)
    copy.snakemake(TARGET)
    assert NOTHING_TO_DO in copy.snakemake("-n", TARGET)

    copy.edit("workflow_scripts/tasks/reference/grading.py", "fmean(parts.values())", "min(parts.values())")
    output = copy.snakemake("-n", TARGET)
    followers = {"construct_meta", "construct_data", "logp", "train", "generate_eval", "evaluate", TARGET}
    assert jobs(output) == {"grade"} | followers
    assert "workflow_scripts/tasks/reference/grading.py: Grading" in output
