"""Test which final results are equal, and which of an answer's results is its final one."""

import json
import subprocess
import sys
import tracemalloc

import pytest

from tests.harness import REPOSITORY
from workflow_scripts import tasks
from workflow_scripts.core.pickles import write_pickle
from workflow_scripts.core.workers import Workers
from workflow_scripts.tasks.math import equality, extraction

DIRECT = "There are 3 + 4 = 7 eggs.\nThe answer is $\\boxed{7}$."
PROGRAM = "```python\nprint(3 * 50)\n```\n```output\n150\n```\nHe gathered $\\boxed{50}$ apples."
SILENT = "Let's write a program.\n```python\ndef f():\n    return 6 * 7\nprint(f())\n```"


@pytest.fixture(scope="module")
def run():
    with Workers() as running:
        yield running


def grade(answer: str, reference: str, run) -> dict:
    """Return what grading adds to an answer."""
    return tasks.load("math", "Grading").grade({"answer": answer, "reference": reference}, run)


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [
        ("18", "18", True),
        ("18.0", "18", True),
        ("$1,234$", "1234", True),
        ("\\frac{3}{4}", "0.75", True),
        ("3.141592", "3.14159", True),
        ("3.1416", "3.14159", False),
        ("15.67", "15", False),
        ("140", "160", False),
        ("", "3", False),
        ("28\\%", "28", True),
        ("x = 5", "5", True),
        ("2\\sqrt{2}", "sqrt(8)", True),
        ("2^{3}", "8", True),
        ("1/0", "1", False),
        ("9" * 200, "3", False),
        ("\\text{Tuesday}", "Tuesday", True),
        ("Monday", "Monday", True),
    ],
)
def test_equality_of_results(run, answer, reference, same):
    [[verdict]] = equality.verdicts([([answer], [reference])], run)
    assert (verdict.is_right, verdict.undecided) == (same, None)


@pytest.mark.parametrize(
    ("answer", "reference", "is_right", "any_right", "path"),
    [
        (DIRECT, "7", True, True, "cot"),
        (DIRECT, "8", False, False, "cot"),
        (PROGRAM, "150", False, True, "pot"),  # the program was right, the conclusion is not
        (PROGRAM, "50", True, True, "pot"),
        (SILENT, "42", True, True, "pot"),
        ("I do not know.", "1", False, False, "cot"),
        ("```python\nwhile True: pass", "1", False, False, "pot"),
    ],
)
def test_the_last_conclusion_is_graded(run, answer, reference, is_right, any_right, path):
    graded = grade(answer, reference, run)

    assert (graded["reward"], graded["any_right"], graded["path"]) == (float(is_right), any_right, path)


def test_the_final_result_is_kept_as_the_prediction(run):
    assert grade(PROGRAM, "50", run)["prediction"] == "50"
    assert grade(SILENT, "42", run)["prediction"] == "42"
    assert grade("I do not know.", "1", run)["prediction"] == ""


@pytest.mark.parametrize(
    ("text", "reference", "right"),
    [
        ("The answer is 18, because it is.", "18", True),
        ("So 7, done", "7", True),
        ("The answer is **18**.", "18", True),
        ("The answer is 1/2.", "0.5", True),
        ("The answer is $\\frac{1}{2}$.", "1/2", True),
        ("The answer is 2\\sqrt{3}.", "2", False),
        ("The answer is 2\\sqrt{3}.", "2\\sqrt{3}", True),
        ("The answer is 5x+3.", "5", False),
        ("\\boxed{1\\frac{1}{2}}", "3/2", True),
        ("\\boxed{1 1}", "11", False),
        ("The answer is 3 / 4.", "3/4", True),
        ("The answer is \u22125.", "-5", True),
        ("\\boxed{2^{10}}", "1024", True),
        ("\\boxed{\\frac13}", "1/3", True),
        ("\\boxed{\\text{Evelyn}}", "\\text{Evelyn}", True),
        ("\\boxed{18 dollars}", "18", True),
        ("\\boxed{18 \\text{ cm}^2}", "18", True),
        ("\\boxed{90^{\\circ}}", "90^\\circ", True),
        ("I think \\boxed{print(True)}", "18", False),
        ("\\boxed{print(True)}", "x+1", False),
        ("\\boxed{x+1}", "1+x", True),
        ("The answer is 1,234.", "1234", True),
    ],
)
def test_results_as_models_write_them(run, text, reference, right):
    assert grade(text, reference, run)["reward"] == float(right)


# ---------------------------------------------------------------- texts that must not end a stage

DIGITS = "7" * 5000
LONG = "longer than 1000 characters"
TOO_LONG = "more than"  # 5 s of CPU, or on a busy machine 60 s
HOSTILE = {
    "nested boxes": ("\\boxed{" * 100_000 + "5" + "}" * 100_000, LONG),
    "a mixed number": (f"\\boxed{{1\\frac{{1}}{{{DIGITS}}}}}", LONG),
    "a huge integer": (f"\\boxed{{{DIGITS * 10}}}", LONG),
    "a lone surrogate": ("\\boxed{\ud800 5}", "lone surrogates"),
    "a tower of powers": ("\\boxed{9^{9^{9^9}}}", "too large"),
    "a huge factorial": ("\\boxed{999999999!}", TOO_LONG),
    "many boxes": ("\\boxed{1} and " * 20_000, LONG),
}
ODD = ["\\boxed{" * 50_000, "answer is" + " " * 100_000 + ".", "1" * 900, "{" * 100_000, "result: " * 20_000]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_text_costs_one_undecided_answer(run, name):
    text, reason = HOSTILE[name]
    first, second = tasks.load("math", "Grading").grade_batch(
        [{"answer": text, "reference": "5"}, {"answer": "\\boxed{\\frac{10}{2}}", "reference": "5"}], run
    )

    assert first["reward"] == 0
    assert reason in first["undecided"]
    assert len(first["prediction"]) <= 1000
    first["prediction"].encode()  # it can be written to a file
    assert (second["reward"], second["undecided"]) == (1, None)


@pytest.mark.parametrize("text", ODD)
def test_long_odd_texts_are_wrong(run, text):
    graded = grade(text, "x+1", run)
    assert (graded["reward"], graded["undecided"]) == (0, None)


def test_grading_needs_memory_in_proportion_to_the_text():
    tracemalloc.start()
    extraction.boxed("\\boxed{" * 100_000 + "5" + "}" * 100_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 100 * 2**20


def test_undecided_answers_are_counted(run):
    grading = tasks.load("math", "Grading")
    answers = [{"answer": HOSTILE["a huge integer"][0], "reference": "5"}, {"answer": "5", "reference": "5"}]
    graded = grading.grade_batch(answers, run)

    assert grading.summary(graded, answers)["undecided"] == 1


def test_the_stage_grades_answers_that_utf8_cannot_encode(tmp_path):
    records = [{"question": "Q?", "answer": text, "reference": "5"} for text in ("\\boxed{\ud800}", "\\boxed{5}")]
    write_pickle(tmp_path / "in.pkl", records)
    command = "-m workflow_scripts.grade --task math --results in.pkl --output out.pkl --ledger ledger".split()
    environment = {"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, env=environment)

    assert done.returncode == 0, done.stderr
    assert "accuracy=0.5000" in done.stdout
    assert "undecided=1" in done.stdout
    assert json.loads((tmp_path / "out.json").read_text())["undecided"] == 1
