"""Changed code does not make finished results again without consent."""

import json
import re

import pytest

from tests.harness import NOTHING_TO_DO, Copy, jobs, tiny_config
from workflow_scripts.core.running.manifest import file_digest

GRADING = "workflow_scripts/tasks/math/grading.py"
TARGET = "round1_checkpoint"


def change_grader(copy: Copy) -> None:
    """Turn the grader's comparison around."""
    copy.edit(GRADING, '"reward": float(is_right),', '"reward": float(not is_right),')


def state(copy: Copy) -> dict[str, str]:
    """Return the digest of each file of the run, without logs, stamps and the driver's lock, which hold times."""
    folder = copy.path("")
    files = [path for path in folder.rglob("*") if path.is_file()]
    files = [path for path in files if "logs" not in path.parts and path.name not in (".stamp.json", "driver.lock")]
    return {str(path.relative_to(folder)): file_digest(path) for path in files}


def accept(copy: Copy) -> None:
    copy.run("workflow_scripts.accept_code", TARGET)


def test_a_dry_run_tells_what_changed_code_would_make_again_and_what_that_costs(fork):
    change_grader(fork)

    output = fork.snakemake("-n", TARGET)

    assert {"grade", "construct_meta", "construct_data", "evaluate", "train"} <= jobs(output)
    assert not {"generate", "cold_start", "freeze_prompts", "init_model"} & jobs(output)
    summary = output.split("Code changed since these finished results were made", 1)[1]
    assert f"grade: {GRADING}: grade_of" in summary
    assert re.search(r"grade +\d+ jobs +\d+ s +\d+\.\d\d GPU-hours", summary)
    assert re.search(r"train +1 jobs", summary)
    assert "workflow_scripts.accept_code" in summary and "code_changes=remake" in summary


def test_a_run_stops_before_it_touches_anything(fork):
    change_grader(fork)
    before = state(fork)

    output = fork.snakemake(TARGET, fails=True)

    assert "Code changed since these finished results were made, and nothing else did" in output
    assert state(fork) == before
    assert "rule grade" not in output.split("Code changed since")[-1]


def test_accepted_results_are_kept_and_verify_shows_them(fork):
    change_grader(fork)
    before = state(fork)

    accept(fork)

    assert NOTHING_TO_DO in fork.snakemake("-n", TARGET)
    assert NOTHING_TO_DO in fork.snakemake(TARGET)
    after = state(fork)
    assert {name for name in before if after[name] != before[name]} <= {"run.json", "driver.json"}
    assert re.search(
        r"round 1: sound \(\d+ artefacts, \d+ accepted although made by earlier code\)", fork.snakemake("verify")
    )
    accepted = json.loads(fork.path("accepted_code.json").read_text())
    assert all(entry["changed"] == [f"{GRADING}: grade_of"] for entry in accepted.values())
    assert len(accepted) == 8  # four shards of answers, two of each evaluation


def test_another_change_after_an_acceptance_is_asked_about_again(fork):
    change_grader(fork)
    accept(fork)
    fork.edit(GRADING, '"any_right": is_right or', '"any_right": not is_right or')

    fork.edit("workflow_scripts/grade.py", "BATCH = 64", "BATCH = 63")
    accept(fork)
    fork.edit("workflow_scripts/grade.py", "BATCH = 63", "BATCH = 62")

    output = fork.snakemake(TARGET, fails=True)
    assert "  grade: workflow_scripts/grade.py: BATCH\n" in output


@pytest.mark.long
def test_accepted_code_still_finds_the_ledger(fork):
    fork.edit("workflow_scripts/generate.py", "for sample in range(samples):", "for sample in range(0, samples):")
    accept(fork)
    config = tiny_config()
    config["generate"]["auto"]["samples"] = 5
    fork.configure(config)

    fork.snakemake("runs/arithmetic/results/r1/auto/2_0.pkl")

    log = fork.path("logs/generate/r1_auto_2_0.log").read_text()
    done, total = map(int, re.search(r"(\d+) of (\d+) records are in the ledger", log).groups())
    assert done * 5 == total * 4


@pytest.mark.long
def test_results_are_made_again_with_consent(fork):
    change_grader(fork)
    before = state(fork)

    fork.snakemake("runs/arithmetic/meta/r1_auto_q2responses_arithmetic.pkl", "--config", "code_changes=remake")

    after = state(fork)
    graded = "results/r1/auto/2_0_matchlog.pkl"
    assert after[graded] != before[graded]
    assert after["results/r1/auto/2_0.pkl"] == before["results/r1/auto/2_0.pkl"]


def test_a_change_of_the_config_beside_a_change_of_code_needs_no_consent(fork):
    fork.edit("workflow_scripts/training/objectives/clip.py", "ratio = tokens", "ratio = 1.0 * tokens")
    config = tiny_config()
    config["train"]["lr"] = 1e-5
    fork.configure(config)

    output = fork.snakemake("-n", TARGET)

    assert jobs(output) >= {"train"} and "cold_start" not in jobs(output)
    assert "Code changed since" not in output


def test_words_for_people_change_nothing(fork):
    fork.edit(GRADING, '"""Grade an answer', '"""This module grades an answer')
    fork.edit("workflow_scripts/grade.py", "should be text, found", "must be text but is")
    fork.edit("workflow_scripts/core/running/cli.py", "ncols=100", "ncols=90")

    assert NOTHING_TO_DO in fork.snakemake("-n", TARGET)
