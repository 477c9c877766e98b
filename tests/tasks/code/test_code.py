"""Programs are judged by tests, and what a program does outside of its functions changes no verdict."""

import time

import pytest

from tests.conversations import saved
from workflow_scripts import freeze_prompts, tasks
from workflow_scripts.config.sections import Data, Split
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.sandbox import Sandbox
from workflow_scripts.tasks.defaults import EnvironmentOptions

TESTS = ["assert add(1, 2) == 3", "assert add(-1, 1) == 0", 'assert add("a", "b") == "ab", "{text}"']
RIGHT = "def add(a, b):\n    return a + b\n"
HALF = "def add(a, b):\n    return abs(a) + b if a == 1 else b - 1\n"  # passes the first two tests
QUESTION = {"id": "q", "question": "Add.", "reference": TESTS, "level": "t"}


@pytest.fixture(scope="module")
def run():
    with Sandbox(cpu_seconds=1, wall_seconds=3) as running:
        yield running


def text_of(*programs: str) -> str:
    """Return an answer with these programs."""
    return "Let me see.\n" + "".join(f"```python\n{program}```\nThat's it.\n" for program in programs)


def grade(run, *programs: str, tests: list[str] = TESTS) -> dict:
    """Return what grading adds to an answer with these programs."""
    return tasks.load("code", "Grading").grade({"answer": text_of(*programs), "reference": tests}, run)


# ---------------------------------------------------------------- grading


@pytest.mark.parametrize(
    ("programs", "passed", "is_right", "any_right"),
    [
        ((RIGHT,), 3, True, True),
        ((HALF,), 2, False, False),
        ((RIGHT, HALF), 2, False, True),
        ((HALF, RIGHT), 3, True, True),
        ((), 0, False, False),
        (("def add(a, b) return",), 0, False, False),
        (("print('x' * 10**5)\n" + RIGHT,), 3, True, True),  # what it prints is not looked at
        (("from __future__ import annotations\n" + RIGHT,), 3, True, True),
        (("from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n" + RIGHT,), 3, True, True),
        ((RIGHT + "if __name__ == '__main__':\n    add(*input().split())\n",), 3, True, True),
    ],
)
def test_the_last_program_is_judged_by_its_tests(run, programs, passed, is_right, any_right):
    graded = grade(run, *programs)

    assert graded["passed"] == passed / 3
    assert graded["reward"] == float(is_right)
    assert graded["any_right"] == any_right
    assert graded["path"] == ("pot" if programs else "cot")
    assert graded["prediction"] == (programs[-1] if programs else "")


@pytest.mark.parametrize(
    "program",
    [
        "raise SystemExit(0)\n",
        "import os\nos._exit(0)\n",
        "def add(a, b):\n    raise SystemExit(0)\n",
        "import builtins\nbuiltins.exec = lambda *_: None\n",
        "exec = print = run = show = lambda *_: None\n",
        "import sys\nsys.exit = print\nadd = lambda a, b: sys.exit(0)\n",
        "number, tests, mark = 3, [], ''\n",
        *(f"print({number})\nprint('mark', {number})\n" for number in range(3)),
        "import os\nfor number in range(3):\n    os.write(1, f' {number}\\n'.encode())\n",
        "def add(a, b):\n    import sys\n    sys.stdout.write('0\\n1\\n2\\n')\n",
    ],
)
def test_programs_that_dodge_the_tests_pass_none(run, program):
    assert grade(run, program)["passed"] == 0


def test_a_test_that_never_ends_costs_itself_and_those_after_it(run):
    looping = "def add(a, b):\n    while a == -1:\n        pass\n    return a + b\n"

    started = time.monotonic()
    assert grade(run, looping)["passed"] == 1 / 3
    assert time.monotonic() - started < 4


def test_a_faulty_test_fails_alone(run):
    assert grade(run, RIGHT, tests=["assert add(1, 2) ==", *TESTS])["passed"] == 3 / 4


# ---------------------------------------------------------------- the other parts


def test_metrics_are_accuracy_and_the_share_of_tests_passed(run):
    evaluation = tasks.load("code", "Evaluation")
    answers = []
    for programs, level in (((RIGHT,), "easy"), ((HALF,), "easy"), ((), "hard")):
        answers.append(grade(run, *programs) | {"level": level})

    metrics = evaluation.summarise(answers)

    assert metrics["accuracy"] == 1 / 3
    assert metrics["n"] == 3
    assert metrics["passed"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert metrics["by_level"]["easy"] == {"accuracy": 0.5, "n": 2, "passed": pytest.approx(5 / 6)}
    assert set(evaluation.metrics) < set(metrics)


def test_prompts_have_their_tests_as_reference(tmp_path):
    records = [{"question": f"Add {i}.", "test_cases": TESTS} for i in range(2)]
    records += [{"question": "Add none.", "test_cases": []}, {"question": "Add text.", "test_cases": "assert True"}]
    path = saved(tmp_path / "a.jsonl", records)
    source = Split(file=path, answer_key="test_cases")

    good, rejects = freeze_prompts.read_set(tasks.load("code", "Prompts"), source, "train", "", 0, set())

    assert [(row["reference"], row["question"]) for row in good] == [(TESTS, "Add 0."), (TESTS, "Add 1.")]
    assert [reject["reason"] for reject in rejects] == ["no answer", "no answer"]


def test_the_task_asks_in_one_way_and_nothing_answers_the_policy():
    conversation = tasks.load("code", "Conversation")

    assert conversation.requests(QUESTION, "auto") == {"auto": "Add."}
    assert conversation.segments("a```output\nb```") == [("a```output\nb```", True)]
    with conversation.environment("auto", EnvironmentOptions()) as environment:
        assert environment.stop == ()
    with pytest.raises(BadInput, match=r"set generate\.trigger to null"):
        conversation.requests(QUESTION, "trigger")


def test_graded_answers_become_training_rows(run):
    selection = tasks.load("code", "Selection")
    answers = []
    for number, program in enumerate((RIGHT, HALF)):
        answer = QUESTION | {"uid": f"q.auto.{number}", "trigger": "auto", "prompt_text": "User:Add."}
        answer |= {"answer": text_of(program), "prompt_tokens": [1], "tokens": [2, 3], "mask": [1, 1]}
        answer |= {"policy": "p", "finish": "eos"}
        answers.append(answer | grade(run, program))

    meta = selection.construct_meta(answers, dedup=False)
    rows, _ = selection.select({"auto": meta}, Data(advantage="group_std").model_dump(), 0, None)

    assert [(row["uid"], row["advantage"]) for row in rows] == [("q.auto.0", 1.0), ("q.auto.1", -1.0)]
    assert rows[0]["reference"] == TESTS
