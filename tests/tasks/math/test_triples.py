"""Answers as models write them, references as data sets publish them, and the verdict that a person gives.

tests/data/math_answers.jsonl holds them: MATH's \\boxed{…}, GSM8K's "#### 18", AIME's integers, multiple choice, lists.
"""

import json

import pytest

from tests.harness import REPOSITORY
from workflow_scripts import tasks
from workflow_scripts.core.workers import Workers

TRIPLES = [json.loads(line) for line in (REPOSITORY / "tests/data/math_answers.jsonl").read_text().splitlines()]
LEAST_RIGHT = 0.98


@pytest.fixture(scope="module")
def grades():
    """Return the grade of each answer."""
    with Workers() as run:
        return tasks.load("math", "Grading").grade_batch(TRIPLES, run)


def test_the_list_is_long_and_has_both_verdicts():
    assert len(TRIPLES) >= 300
    assert {triple["format"] for triple in TRIPLES} == {"MATH", "GSM8K", "AIME", "choice", "list"}
    assert 0.3 < sum(triple["right"] for triple in TRIPLES) / len(TRIPLES) < 0.7


def test_verdicts_are_those_of_a_person(grades):
    differing = [
        (triple["answer"], triple["reference"])
        for triple, grade in zip(TRIPLES, grades)
        if (grade["reward"] == 1) != triple["right"]
    ]
    assert len(differing) <= (1 - LEAST_RIGHT) * len(TRIPLES), differing


def test_few_are_undecided_and_each_has_a_reason(grades):
    reasons = [grade["undecided"] for grade in grades if grade["undecided"]]
    assert len(reasons) <= 3
    assert all(len(reason) > 10 for reason in reasons)
