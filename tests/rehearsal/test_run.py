"""Rehearsals from end to end, with the shipped recipe `code` and data in its published format."""

import json

import pytest

from tests.harness import Copy
from tests.published_data import write_all
from workflow_scripts.rehearsal.checks.machine import ELSEWHERE

pytestmark = pytest.mark.slow
REPORT = "runs/code-rehearsal/report/rehearsal.json"


@pytest.fixture
def copy(tmp_path, monkeypatch) -> Copy:
    monkeypatch.setenv(ELSEWHERE, "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    copy = Copy(tmp_path / "rehearsal")
    write_all(copy.folder)
    return copy


def findings(copy: Copy, grade: str) -> list[str]:
    """Return the texts of the report's findings of a grade."""
    report = json.loads((copy.folder / REPORT).read_text())
    return [f"{finding['place']}: {finding['text']}" for finding in report["findings"] if finding["grade"] == grade]


def test_a_recipe_is_rehearsed_and_nothing_reaches_the_run_itself(copy):
    output = copy.snakemake("rehearse", "--configfile", "recipes/code.yaml")

    assert "# Rehearsal of code" in output
    assert not findings(copy, "fail")
    assert "data.source: 94 of the first 96 rows are usable." in findings(copy, "know")
    assert (copy.folder / "runs/code-rehearsal/checkpoints/r1/checkpoint.json").exists()
    assert not (copy.folder / "runs/code").exists()


def test_a_stage_that_fails_is_reported(copy):
    output = copy.snakemake(
        "rehearse", "--configfile", "recipes/code.yaml", "--config", "train={max_length: 20}", fails=True
    )

    assert "## Would fail, or give wrong results" in output
    failures = findings(copy, "fail")
    assert any(
        text.startswith("train/r1: the stage fails:") and "longer than max_length 20" in text for text in failures
    )
    assert any(text.startswith("train.max_length:") for text in failures)
