"""No program passes a test that it should not."""

import json

import pytest

from tests.tasks.code.cheats import ADD, AREA, CHECK, SETS, STDIN, UNITTEST
from tests.tasks.code.cheats import CHEATS as CHEATS_OF_VALUES
from tests.tasks.code.cheats_of_processes import CHEATS_OF_PROCESSES
from workflow_scripts import tasks
from workflow_scripts.core.workers import Workers

CHEATS = CHEATS_OF_VALUES + CHEATS_OF_PROCESSES
HONEST = """def add(a, b): return a + b
def area(r): return 3.14159265 * r * r
def common(a, b): return [x for x in a if x in b]
"""
DOUBLE = "print(2 * int(input()))\n"
LIMITS = {"limits": {"cpu_seconds": 2, "wall_seconds": 10}}


def graded(trials: list[tuple[str, list[str]]]) -> list[dict]:
    """Return the grades of programs with their tests."""
    answers = [{"answer": f"```python\n{program}```", "reference": tests} for program, tests in trials]
    with Workers() as run:
        return tasks.load("code", "Grading", LIMITS).grade_batch(answers, run)


@pytest.fixture(scope="module")
def grades():
    """Return the grade of each cheating program."""
    return dict(zip((name for name, _, _ in CHEATS), graded([(program, tests) for _, program, tests in CHEATS])))


def test_there_are_many_and_their_names_are_unique():
    assert len({name for name, _, _ in CHEATS}) == len(CHEATS) >= 40


@pytest.mark.parametrize("name", [name for name, _, _ in CHEATS])
def test_a_cheating_program_passes_nothing(grades, name):
    assert grades[name]["passed"] == 0
    assert grades[name]["reward"] == 0
    assert grades[name]["failure"]


def test_honest_programs_pass_the_same_tests():
    tests = sorted({test for _, _, cheated in CHEATS for test in cheated if "stdin" not in test})
    usual = [*ADD, *AREA, *SETS, *UNITTEST, *CHECK]
    honest, double = graded([(HONEST, usual), (DOUBLE, STDIN)])

    assert set(usual) <= set(tests)
    assert (honest["passed"], honest["failure"]) == (1, None)
    assert (double["passed"], double["failure"]) == (1, None)


def test_a_cheat_does_not_reach_the_next_program():
    spoilt = [(program, tests) for name, program, tests in CHEATS if name in ("json", "builtins.exec", "unittest")]
    trials = [trial for cheat in spoilt for trial in (cheat, (HONEST, ADD + UNITTEST), (HONEST + "\n", STDIN[:1]))]

    for (program, tests), grade in zip(trials, graded(trials)):
        should = 1 if program == HONEST and tests != STDIN[:1] else 0
        assert grade["passed"] == should, (program, json.dumps(grade))
