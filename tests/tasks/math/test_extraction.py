"""Each rule that finds the answers in a text, and their order."""

import pytest

from workflow_scripts.tasks.math import extraction
from workflow_scripts.tasks.math.prompts import references_of


@pytest.mark.parametrize(
    ("text", "contents"),
    [
        ("so \\boxed{5}.", ["5"]),
        ("\\boxed{\\frac{1}{2}} then \\boxed{3}", ["\\frac{1}{2}", "3"]),
        ("\\boxed{\\boxed{5}}", ["\\boxed{5}"]),
        ("\\boxed {5}", ["5"]),
        ("\\boxed{}", []),
        ("\\boxed{1 and \\boxed{2}", ["2"]),
        ("$\\boxed{1}$ and $\\boxed{2}$", ["1, 2"]),
        ("$\\boxed{1}$, $\\boxed{2}$, or $\\boxed{3}$", ["1, 2, 3"]),
        ("\\boxed{17}, but it is \\boxed{18}", ["17", "18"]),
        ("\\boxed{\\{1, 2\\}}", ["\\{1, 2\\}"]),
        ("none", []),
    ],
)
def test_boxes(text, contents):
    assert extraction.boxed(text) == contents


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        ("9 * 2 = <<9*2=18>>18\n#### 18", ["18"]),
        ("#### $1,800", ["$1,800"]),
        ("#### 18\nmore text", []),
        ("18", []),
    ],
)
def test_marks(text, answers):
    assert extraction.marked(text) == answers


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        ("The answer is 18.", ["18"]),
        ("The answer is approximately 3.5.", ["3.5"]),
        ("The answer is given by $\\frac{1}{2}$.", ["$\\frac{1}{2}$"]),
        ("The answer is (B).", ["(B)"]),
        ("The answer is every other week.", ["every other week"]),
        ("The answer is Tuesday, because it rains.", ["Tuesday"]),
        ("The answer is 1, 2 and 3.", ["1, 2 and 3"]),
        ("The answer is 18, 9 of which are red.", ["18"]),
        ("The answer is 2\\sqrt{3}.", ["2\\sqrt{3}"]),
        ("The answer is 1 million.", ["1 million"]),
        ("The answer is 17. No, the result is 18.", ["17", "18"]),
        ("Answer: \\(x+1\\)", ["\\(x+1\\)"]),
        ("It answers 18.", []),
    ],
)
def test_claims(text, answers):
    assert extraction.claimed(text) == answers


def test_the_last_number():
    assert extraction.last_number("3 + 4 = 7 eggs, or 1/2 of 14") == ["14"]
    assert extraction.last_number("none") == []


@pytest.mark.parametrize(
    ("conclusion", "outputs", "final"),
    [
        ("The answer is 3. So \\boxed{4}.", None, "4"),  # a box comes before a claim
        ("The answer is 3.\n#### 4", None, "4"),
        ("The answer is 3, of 12 apples", None, "3"),  # a claim comes before the last number
        ("There are 12 apples, as computed in step 3.", ["7"], "7"),  # so does a program's output
        ("The answer is 3.", ["7"], "3"),
        ("There are 12 apples.", [], "12"),  # a program that prints nothing
        ("There are 12 apples.", None, "12"),
        ("I do not know.", None, None),
    ],
)
def test_the_order_of_the_rules(conclusion, outputs, final):
    assert extraction.final_answer(conclusion, outputs) == final


@pytest.mark.parametrize(
    ("reference", "answers"),
    [
        ("She has 9 * 2 = <<9*2=18>>18 dollars.\n#### 18", ["18"]),
        ("First $\\boxed{1}$ fails, so $\\boxed{\\frac{3}{4}}$.", ["\\frac{3}{4}"]),
        (["0.5", "1/2"], ["0.5", "1/2"]),
        (["0.5", 0.5], ["0.5", "0.5"]),
        (18, ["18"]),
        ("(B)", ["(B)"]),
    ],
)
def test_references_as_published(reference, answers):
    assert references_of(reference) == answers
