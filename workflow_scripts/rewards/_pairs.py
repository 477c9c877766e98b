"""Comparisons by a judge: which of two answers is better? Order, verdicts and position bias.

Which text is shown first is drawn from the answer's id, so that a judge who prefers first answers favours neither side.
A share of the pairs, drawn from the ids too, is shown in both orders, and the verdict is the mean of both: this tells
how consistent the judge is. Equal texts are ties, and the judge is not asked about them.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.identity import digest
from workflow_scripts.core.significance import wilson
from workflow_scripts.engines import Chat, Reply
from workflow_scripts.rewards._parts import printable

CRITERION = "Which of two answers to an instruction is better: more helpful, more correct, better written?"
QUESTION = """{criterion}

Instruction:
{question}

Answer A:
{a}

Answer B:
{b}

Reply with one word: A, B or tie."""
TIE = 0.5


@dataclass
class Pair:
    """A text and the one that it is compared with."""

    uid: str
    question: str
    text: str
    other: str


@dataclass
class Judged:
    """The verdict on a pair: 1 if the text won, 0.5 for a tie, 0 if it lost; None, and the reason, if there is none."""

    value: float | None
    reason: str | None = None
    preferred: list[str] = field(default_factory=list)  # per order in which it was shown: first, second or tie


def read_rubric(path: str | None) -> str | None:
    """Return the text of a rubric's file."""
    if path is None:
        return None

    text = Path(path).read_text().strip()
    if not text:
        raise BadInput(f"{path}: the rubric is empty; it should say what makes an answer good")
    return text


def is_shown_first(uid: str) -> bool:
    """Return whether the text is A, and what it is compared with is B."""
    return int(digest(["judge", uid]), 16) % 2 == 0


def is_swapped(uid: str, share: float) -> bool:
    """Return whether a pair is shown in the other order as well."""
    return int(digest(["swapped", uid]), 16) < share * 16**16


def chat(pair: Pair, is_first: bool, criterion: str, max_tokens: int) -> Chat:
    """Return the question to the judge about a pair, with the text as A or as B."""
    texts = (pair.text, pair.other)
    a, b = texts if is_first else texts[::-1]
    a, b = printable(a.strip()), printable(b.strip())
    content = QUESTION.format(criterion=criterion, question=pair.question, a=a, b=b)
    seed = int(digest(pair.uid), 16) % 2**31
    return Chat([{"role": "user", "content": content}], seed, max_tokens)


def verdict(reply: Reply, is_first: bool) -> Judged:
    """Return the verdict in a reply about one order."""
    if reply.rejected:
        return Judged(None, reply.rejected)

    match = re.fullmatch(r"\W*(A|B|tie)\W*", reply.text, re.IGNORECASE)
    if not match:
        return Judged(None, f"neither A, B nor tie: {reply.text.strip()!r:.60}")
    if match[1].casefold() == "tie":
        return Judged(TIE, None, ["tie"])

    prefers_first = match[1].upper() == "A"
    return Judged(float(prefers_first == is_first), None, ["first" if prefers_first else "second"])


def judge_pairs(engine: Any, pairs: Sequence[Pair], settings: dict[str, Any], criterion: str) -> list[Judged]:
    """Return the judge's verdict on each pair.

    Args:
        engine: the engine that asks the judge.
        pairs: what is compared.
        settings: a config section `judge`, as JSON.
        criterion: what the judge is asked.
    """
    shown: list[tuple[int, bool]] = []  # pair, and whether its text is A
    for number, pair in enumerate(pairs):
        if pair.text != pair.other:
            first = is_shown_first(pair.uid)
            shown += [(number, first)]
            shown += [(number, not first)] if is_swapped(pair.uid, settings["swapped"]) else []

    chats = [chat(pairs[number], is_first, criterion, settings["max_tokens"]) for number, is_first in shown]
    verdicts: list[list[Judged]] = [[] for _ in pairs]
    for (number, is_first), reply in zip(shown, engine.generate(chats)):
        verdicts[number].append(verdict(reply, is_first))

    return [merged(of_pair) for of_pair in verdicts]


def merged(verdicts: list[Judged]) -> Judged:
    """Return the mean of the verdicts in one or both orders; a tie if the judge was not asked."""
    if not verdicts:
        return Judged(TIE)
    if faulty := next((one for one in verdicts if one.value is None), None):
        return Judged(None, faulty.reason)

    values = [one.value for one in verdicts if one.value is not None]
    return Judged(sum(values) / len(values), None, [position for one in verdicts for position in one.preferred])


def position_bias(preferred: Iterable[Sequence[str]]) -> dict[str, Any]:
    """Return how often the judge prefers the answer that is shown first, and how consistent it is.

    Args:
        preferred: for each pair, what was preferred in each order in which it was shown: first, second or tie.

    Returns:
        asked: the number of verdicts.
        first: the share of verdicts for the first answer among those that are no ties, with its interval `low`, `high`.
            Because orders are drawn, a judge without bias has one half.
        swapped, consistent: the number of pairs in both orders, and the share of them with the same verdict in both.
    """
    pairs = [list(positions) for positions in preferred if positions]
    verdicts = [position for positions in pairs for position in positions]
    both = [positions for positions in pairs if len(positions) == 2]
    bias: dict[str, Any] = {"asked": len(verdicts), "swapped": len(both)}

    first = verdicts.count("first")
    decided = first + verdicts.count("second")
    if decided:
        bias |= {"first": first / decided} | wilson(first, decided)
    if both:
        same = [["first", "second"], ["second", "first"], ["tie", "tie"]]
        bias["consistent"] = sum(positions in same for positions in both) / len(both)

    return bias


def described(bias: dict[str, Any]) -> str:
    """Return a judge's position bias in words."""
    words = [f"{bias['asked']} verdicts"]
    if "first" in bias:
        words.append(f"the first answer won {bias['first']:.1%} ({bias['low']:.1%} to {bias['high']:.1%})")
    if "consistent" in bias:
        words.append(f"{bias['consistent']:.1%} of {bias['swapped']} pairs have the same verdict in both orders")
    return ", ".join(words)
