"""`plan` counts the records that a command will compute, and what they cost."""

import json

import pytest

from tests.harness import Copy, edit_prompts, tiny_config
from workflow_scripts.core.running.ledger import batch_in
from workflow_scripts.overview.estimate import schedule
from workflow_scripts.overview.jobs import survey
from workflow_scripts.overview.plan import plan_of


def plan(copy: Copy, *arguments: str) -> dict:
    """Return what `plan --json` prints, with its lines by stage."""
    values = json.loads(copy.run("workflow_scripts.plan", *arguments, "--json"))
    return values | {"lines": {line["stage"]: line for line in values["lines"]}}


def entries(copy: Copy, stage: str) -> int:
    """Return how many records the ledgers of a stage hold for round 1's answers."""
    files = [path for path in copy.path(f"ledger/{stage}").rglob("*.jsonl") if "evaluation" not in path.parts]
    return sum(len(batch_in(line) or []) for path in files for line in path.open("rb"))


def with_value(frame, column: str, value: str):
    """Return prompts with another value in the sixth one."""
    frame.loc[5, column] = value
    return frame


@pytest.mark.long
@pytest.mark.parametrize(
    ("edit", "samples", "generated", "graded"),
    [
        (
            ("question", "What is 7 plus 1?"),
            4,
            1 * (4 + 4),
            1 * (4 + 4),
        ),  # one question: four auto answers, and two of each of two triggers
        (("reference", "77"), 4, 0, 4 + 4),  # its answers stay, and are graded again
        (None, 6, 24 * 2, 24 * 2),  # two more samples of each of 24 questions
    ],
)
def test_the_records_of_a_change_are_those_that_the_run_computes(fork, edit, samples, generated, graded):
    if edit:
        edit_prompts(fork, lambda frame: with_value(frame, *edit))
    config = tiny_config()
    config["generate"]["auto"]["samples"] = samples
    fork.configure(config)

    lines = plan(fork, "round1_graded")["lines"]

    planned = {stage: line["records"] for stage, line in lines.items()}
    assert sum(count for stage, count in planned.items() if stage.startswith("generate")) == generated
    assert sum(count for stage, count in planned.items() if stage.startswith("grade")) == graded
    assert all(line["is_exact"] for line in lines.values())

    before = {stage: entries(fork, stage) for stage in ("generate", "grade")}
    fork.snakemake("round1_graded")
    assert entries(fork, "generate") - before["generate"] == generated
    assert entries(fork, "grade") - before["grade"] == graded


def test_answers_that_are_made_again_may_have_known_grades(finished):
    state = plan(finished, "round1_graded", "--config", "generate={trigger: {max_tokens: 41}}")
    lines = state["lines"]

    answers, grades = lines["generate trigger"], lines["grade trigger"]
    assert answers["is_exact"] and answers["records"] == grades["records"] == 24 * 2 * 2
    assert grades["is_most"] and not grades["is_exact"]
    output = finished.run("workflow_scripts.plan", "round1_graded", "--config", "generate={trigger: {max_tokens: 41}}")
    assert "at most 96" in output


def test_a_further_round_is_priced_by_the_one_before(finished):
    state = plan(finished, "round2_checkpoint")
    lines = state["lines"]

    assert lines["generate auto"]["records"] == 24 * 4 and lines["generate auto"]["is_exact"]
    assert lines["grade evaluation"]["records"] == 12
    rows = json.loads(finished.path("checkpoints/r1/checkpoint.json").read_text())["rows"]
    assert lines["train"]["records"] == rows * 3 and not lines["train"]["is_exact"]
    assert lines["generate auto"]["tokens"] > 0 and lines["train"]["bytes"] > 100_000

    low, middle, high = state["seconds"]
    assert 0 < low < middle < high and state["unknown"] == []
    assert {"0", "1"} == set(state["untouched"])

    output = finished.run("workflow_scripts.plan", "round2_checkpoint")
    assert "Time until the end:" in output and "Left alone:" in output and "about" in output


def test_without_history_it_says_that_it_does_not_know(fork):
    config = tiny_config(name="new")
    fork.configure(config)

    state = plan(fork, "round1_checkpoint")

    assert state["seconds"] is None and "cold_start" in state["unknown"]
    assert state["lines"]["generate auto"]["records"] == 24 * 4
    assert state["lines"]["train"]["records"] is None
    output = fork.run("workflow_scripts.plan", "round1_checkpoint")
    assert "unknown, because no job of" in output


def test_nothing_pending_costs_nothing(finished):
    assert "nothing is pending" in finished.run("workflow_scripts.plan", "round1_checkpoint")


def test_a_round_like_the_first_is_expected_to_take_as_long(finished, monkeypatch):
    monkeypatch.chdir(finished.folder)
    run = survey(["round2_checkpoint"])
    seconds = schedule(run, [job.seconds if job.round == 1 else 0.0 for job in run.jobs])

    expected = plan_of(run).seconds

    assert expected and expected[1] / 2 < seconds < 2 * expected[1]
