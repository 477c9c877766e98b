"""Made-up questions: arithmetic at three levels, with worked answers.

One-digit facts can be learnt by heart and two-digit products cannot, so a policy that chooses well answers the former
directly and writes a program for the latter. Train and eval questions are disjoint as texts: the easiest level shares
its facts and holds out wordings, the other levels hold out operands.
"""

import itertools
import random
import zlib
from collections.abc import Callable, Iterator

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.identity import record_id
from workflow_scripts.core.records import Piece, Prompt, WorkedExample
from workflow_scripts.tasks.defaults import check_count

Fact = tuple[int, str, int]  # operand, sign, operand

ASKS = ("What is", "Compute", "Please compute", "Work out", "Calculate", "Find", "Tell me", "I need", "How much is")
OBJECTS = ("{}", "the value of {}", "the result of {}")
# Each way to ask and each object is trained on, but not these pairs of them.
HELD_OUT_WORDINGS = ("Compute the value of {}.", "Tell me the result of {}.", "Find {}.")
WORDINGS = tuple(wording for ask in ASKS for what in OBJECTS if (wording := f"{ask} {what}.") not in HELD_OUT_WORDINGS)

APPLY: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
}
LEVELS = {
    "one_digit": (range(10), "+-*"),
    "two_digit_sum": (range(10, 100), "+-"),
    "two_digit_product": (range(10, 100), "*"),
}
AUTO_SHARE = 0.5  # share of the direct worked examples that are asked for without a trigger
AUTO_CODE = 0.4  # share of the worked examples without a trigger that write a program


def facts(level: str, split: str) -> list[Fact]:
    """Return all facts of a level. Differences are not negative.

    Above the first level, every tenth fact is held out for eval.
    """
    if level not in LEVELS:
        raise BadInput(f"there is no level {level!r}; levels are {', '.join(LEVELS)}")

    operands, signs = LEVELS[level]
    pairs = itertools.product(operands, repeat=2)
    every = [(a, sign, b) for a, b in pairs for sign in signs if sign != "-" or a >= b]

    if level == "one_digit":
        return every

    return [fact for fact in every if (zlib.crc32(repr(fact).encode()) % 10 == 0) == (split == "eval")]


def wordings_of(level: str, split: str) -> tuple[str, ...]:
    """Return the wordings in which a split asks for the facts of a level."""
    return HELD_OUT_WORDINGS if split == "eval" and level == "one_digit" else WORDINGS


def questions(level: str, split: str, rng: random.Random) -> Iterator[tuple[str, Fact]]:
    """Yield (question, fact) without end. A question may come again."""
    pool = facts(level, split)
    wordings = wordings_of(level, split)

    while True:
        fact = rng.choice(pool)
        yield rng.choice(wordings).format(f"{fact[0]} {fact[1]} {fact[2]}"), fact


def made_up_prompts(count: dict[str, int], split: str, seed: int) -> Iterator[Prompt]:
    """Yield `count` different questions of each level."""
    for level, wanted in count.items():
        available = len(facts(level, split)) * len(wordings_of(level, split))
        check_count(split, level, wanted, available, "questions")
        seen: set[str] = set()

        for question, (a, sign, b) in questions(level, split, random.Random(f"{seed}.{split}.{level}")):
            if len(seen) == wanted:
                break
            if question not in seen:
                seen.add(question)
                answer = str(APPLY[sign](a, b))
                yield {"id": record_id(question), "question": question, "reference": answer, "level": level}


def made_up_examples(count: dict, seed: int) -> Iterator[WorkedExample]:
    """Yield worked answers of both kinds, in auto mode and triggered, shuffled over levels."""
    if plain := [level for level, counts in count.items() if not isinstance(counts, dict)]:
        raise BadInput(f"cold_start.count.{plain[0]}: give `direct` and `code`, the numbers of examples of each kind")

    rng = random.Random(f"{seed}.cold_start")
    order = [draw for level, counts in count.items() for draw in _draws(level, counts)]
    rng.shuffle(order)
    streams = {level: questions(level, "train", rng) for level in count}

    for level, path, trigger in order:
        question, (a, sign, b) = next(streams[level])
        yield {"question": question, "pieces": worked_answer(a, sign, b, path), "trigger": trigger}


def _draws(level: str, counts: dict[str, int]) -> Iterator[tuple[str, str, str]]:
    """Yield (level, path, trigger) for each example.

    In auto mode a fixed share of every level writes code, so that the cold start prefers no path at any level. Further
    code examples are asked for by the trigger.
    """
    direct = round(AUTO_SHARE * counts["direct"])
    code = min(counts["code"], round(direct * AUTO_CODE / (1 - AUTO_CODE)))

    for path, auto, total in (("cot", direct, counts["direct"]), ("pot", code, counts["code"])):
        yield from [(level, path, "auto")] * auto + [(level, path, path)] * (total - auto)


def worked_answer(a: int, sign: str, b: int, path: str) -> list[Piece]:
    """Return a worked answer: stated directly (cot), or printed by a program whose output is the answer (pot)."""
    result = APPLY[sign](a, b)

    if path == "cot":
        return [(f" The answer is {result}.", True)]

    return [(f"\n```python\nprint({a} {sign} {b})\n```\n```output", True), (f"\n{result}\n```\n", False)]
