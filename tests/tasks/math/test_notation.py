"""Answers are written in one notation, in time linear in their length."""

import time

import pytest

from workflow_scripts.tasks.math.notation import notation

LONG = {
    "digits": "9" * 200_000,
    "white space": "5" + " " * 200_000 + "x",
    "white space before a percent sign": "5" + " " * 200_000 + "%",
    "spaces of LaTeX": "5^" + r"\!" * 100_000 + "x",
    "a power": "^" + " " * 200_000 + "x",
    "words": "a" * 200_000 + "!",
    "braces": "{" * 200_000,
}


@pytest.mark.parametrize("kind", LONG)
def test_long_answers_take_linear_time(kind):
    """With quadratic time, each of these would take minutes."""
    before = time.process_time()
    notation(LONG[kind])
    assert time.process_time() - before < 20


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (r"{n \choose 2}", r"\binom{n}{2}"),
        (r"12 \choose 34", r"\binom{12}{34}"),
        (r"2n\choose k", r"\binom{2n}{k}"),
        ("10 000", "10000"),
        ("5" + " " * 30 + "cm", "5"),
    ],
)
def test_the_notation_is_as_before(answer, text):
    assert notation(answer).text == text
