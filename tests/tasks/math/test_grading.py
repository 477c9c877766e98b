"""Test which final results are equal, and which of an answer's results is its final one."""

import time

import pytest

from workflow_scripts import tasks
from workflow_scripts.core.sandbox import Sandbox
from workflow_scripts.tasks.math import equality

DIRECT = "There are 3 + 4 = 7 eggs.\nThe answer is $\\boxed{7}$."
PROGRAM = "```python\nprint(3 * 50)\n```\n```output\n150\n```\nHe gathered $\\boxed{50}$ apples."
SILENT = "Let's write a program.\n```python\ndef f():\n    return 6 * 7\nprint(f())\n```"


@pytest.fixture(scope="module")
def run():
    with Sandbox() as running:
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
        ("3.1416", "3.14159", True),
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
    assert equality.equal(answer, reference, run) is same


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


@pytest.mark.parametrize("text", ["\\boxed{" * 50_000, "answer is" + " " * 100_000 + ".", "1" * 100_000, "{" * 100_000])
def test_grading_long_odd_texts_takes_no_time(run, text):
    started = time.monotonic()
    grade(text, "1", run)
    assert time.monotonic() - started < 2
