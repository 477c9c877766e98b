"""Decide whether final answers equal a reference: right, wrong, or undecided with a reason.

Equal texts, integers, letters of a multiple choice and plain words are decided here. Everything else is left to
math-verify in an isolated process (`comparison.py`), so no text of a model is evaluated in this one.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from workflow_scripts.core.workers import Outcome
from workflow_scripts.tasks.math import comparison
from workflow_scripts.tasks.math.extraction import LONGEST
from workflow_scripts.tasks.math.notation import WORD, Notation, choice, integer, is_closed, notation


class Verdict(NamedTuple):
    """What became of one answer."""

    is_right: bool
    undecided: str | None = None  # the reason, if it could not be decided


RIGHT, WRONG = Verdict(True), Verdict(False)
BASE = re.compile(r"(\w+)_\{?(\d+)\}?")  # 1011_2
RATIO = re.compile(r"\s*:\s*")


def decided(answer: str, reference: str) -> Verdict | None:
    """Return the verdict on an answer if it needs no algebra, else None."""
    if not answer.strip() or not reference.strip(" \n$."):
        return WRONG
    if answer.strip() == reference.strip():
        return RIGHT
    if not is_closed(reference):
        return WRONG  # it is no formula
    if any("\ud800" <= character <= "\udfff" for character in answer):
        return Verdict(False, "the answer has lone surrogates")
    if len(answer) > LONGEST:
        return Verdict(False, f"the answer is longer than {LONGEST} characters")

    left, right = notation(answer), notation(reference)
    if left.unit and right.unit and left.unit != right.unit:
        return WRONG
    if re.fullmatch(r"[A-J]", right.text):
        letter = choice(left.text)
        return Verdict(letter == right.text) if letter else WRONG

    integers = integer(left.text), integer(right.text)
    if None not in integers and integers[0] == integers[1]:
        return RIGHT
    if None not in integers and left.is_percent == right.is_percent:
        return WRONG

    return decided_text(left, right)


def decided_text(left: Notation, right: Notation) -> Verdict | None:
    """Return the verdict on two answers if their texts decide it, else None."""
    if not left.text or not right.text:
        return WRONG
    if left.is_percent == right.is_percent and without_spaces(left.text) == without_spaces(right.text):
        return RIGHT
    if ":" in left.text or ":" in right.text:  # a ratio is no fraction
        return Verdict(RATIO.sub(":", left.text) == RATIO.sub(":", right.text))

    bases = BASE.fullmatch(left.text), BASE.fullmatch(right.text)
    if right.text.isdigit() and bases[0]:
        return WRONG  # 12_8 is not 12
    if bases[1] and bases[1][1][0].isdigit():
        return Verdict(left.text == bases[1][1] if not bases[0] else bases[0].groups() == bases[1].groups())

    if WORD.fullmatch(right.text) and not (right.text.islower() and len(right.text) <= 3):
        return Verdict(words(left.text) == words(right.text))
    return None


def without_spaces(text: str) -> str:
    """Return a text without the spaces that mean nothing; those between digits stay, because 1 1 is not 11."""
    return re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", text)


def words(text: str) -> str:
    """Return words as they are compared: without case and punctuation, and without an article."""
    return re.sub(r"\A(?:the|an?) ", "", " ".join(re.sub(r"[^\w ]", " ", text.casefold()).split()))


# ---------------------------------------------------------------- many answers


def verdicts(questions: Sequence[tuple[Sequence[str], Sequence[str]]], run: Any) -> list[list[Verdict]]:
    """Return the verdict on each answer of each question.

    Args:
        questions: answers and references of each. An answer is right if it equals one of the references.
        run: runs handlers in isolated processes (`Workers`).
    """
    decisions: list[list[Verdict | None]] = []
    requests = []
    places = []

    for number, (answers, references) in enumerate(questions):
        decisions.append([best([decided(answer, reference) for reference in references]) for answer in answers])
        open_answers = [i for i, decision in enumerate(decisions[-1]) if decision is None]
        if open_answers:
            places.append((number, open_answers))
            requests.append(
                {
                    "answers": [notation(answers[i])._asdict() for i in open_answers],
                    "references": [notation(reference)._asdict() for reference in references],
                }
            )

    for (number, open_answers), outcome in zip(places, handled(requests, run)):
        for place, i in enumerate(open_answers):
            decisions[number][i] = read_verdict(outcome, place)

    return decisions  # type: ignore[return-value]


def best(decisions: list[Verdict | None]) -> Verdict | None:
    """Return the verdict on an answer by those against each reference: one that is right is enough."""
    if RIGHT in decisions:
        return RIGHT
    if None in decisions:
        return None
    return next((decision for decision in decisions if decision and decision.undecided), WRONG)


def read_verdict(outcome: Outcome, place: int) -> Verdict:
    """Return the verdict of a comparison; one that never began or ended is undecided."""
    if place >= len(outcome.values):
        return Verdict(False, f"the comparison {outcome.fault}" if outcome.fault else "the comparison did not end")
    text = outcome.values[place]
    if text in ("right", "wrong"):
        return Verdict(text == "right")
    return Verdict(False, text.removeprefix("undecided: "))


def handled(requests: list[Any], run: Any) -> list[Outcome]:
    """Return the outcomes of comparisons. Where prompts are frozen, `run` refuses whatever needs the sandbox."""
    if not requests:
        return []
    if not hasattr(run, "handle"):
        run("")
    return run.handle(comparison, requests)
