"""Why a job runs, in words."""

import pytest

from workflow_scripts.workflow.changes import changed_settings


@pytest.mark.parametrize(
    ("rule", "before", "now", "expected"),
    [
        (
            "train",
            ["""'--settings \\'{"lr": 1e-06, "epochs": 3}\\''"""],
            ["""'--settings \\'{"lr": 2e-06, "epochs": 3}\\''"""],
            ["train.lr: 1e-6 → 2e-6"],
        ),
        (
            "cold_start",
            ["""'--settings \\'{"lr": 1e-06}\\''"""],
            ["""'--settings \\'{"lr": 1e-06, "schedule": "cosine"}\\''"""],
            ["cold_start.train.schedule: constant → cosine"],
        ),
        (
            "generate",
            ["""'--settings \\'{"auto": {"samples": 4, "turns": 2}}\\''"""],
            ["""'--settings \\'{"auto": {"samples": 8, "turns": 2}}\\''"""],
            ["generate.auto.samples: 4 → 8"],
        ),
        ("grade", ["'--reward bleu'"], ["'--reward my.py:length'"], ["reward: bleu → my.py:length"]),
        ("construct_meta", [], ["'--dedup'"], ["dedup: default → true"]),
        ("generate", ["'--seed 0.r1'", "'--code 0123456789ab'"], ["'--seed 1.r1'"], ["seed: 0.r1 → 1.r1"]),
        ("construct_data", ["""'--task-settings \\'{"easy": 1}\\''"""], [], ["math.easy: 1 → default"]),
        ("tabulate", ["""'--settings \\'{"a": 1}\\''"""], ["""'--settings \\'{"a": 2}\\''"""], ["tabulate.a: 1 → 2"]),
    ],
)
def test_changed_settings_are_named_by_their_keys(rule, before, now, expected):
    assert changed_settings(rule, "math", before, now) == expected
