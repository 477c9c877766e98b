"""The math recipe in miniature: arithmetic at three levels, small enough for a laptop's CPU.

One-digit facts can be learnt by heart and two-digit products cannot, so a policy that chooses well answers the
former directly and writes a program for the latter. Train and eval are disjoint as texts: the easiest level
shares its facts and holds out wordings, the others hold out operands.
"""

import itertools
import random
import zlib
from collections.abc import Callable, Iterator

from workflow_scripts.core.prompts import check_count
from workflow_scripts.core.records import BadInput, record_id
from workflow_scripts.tasks import math
from workflow_scripts.tasks.math import *  # noqa: F403  grading, selection and the rest are the math task's

MAKES_UP = True
ASKS = ("What is", "Compute", "Please compute", "Work out", "Calculate", "Find", "Tell me", "I need", "How much is")
OBJECTS = ("{}", "the value of {}", "the result of {}")
# each way to ask and each object is trained on, these pairs of them are not
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
AUTO_SHARE = 0.5  # of the direct worked examples that are asked for without a trigger
AUTO_CODE = 0.4  # of the worked examples without a trigger that write a program


def facts(level: str, split: str) -> list[tuple[int, str, int]]:
    """All (a, op, b) of a level; above the first, every tenth is held out for eval. Differences are not negative."""
    if level not in LEVELS:
        raise BadInput(f"there is no level {level!r}; levels are {', '.join(LEVELS)}")
    operands, signs = LEVELS[level]
    found = [(a, sign, b) for a, b in itertools.product(operands, repeat=2) for sign in signs if sign != "-" or a >= b]
    if level == "one_digit":
        return found
    return [fact for fact in found if (zlib.crc32(repr(fact).encode()) % 10 == 0) == (split == "eval")]


def questions(level: str, split: str, rng: random.Random) -> Iterator[tuple[str, tuple]]:
    """(question, fact) for ever, seeded; a text may come again."""
    pool = facts(level, split)
    wordings = HELD_OUT_WORDINGS if split == "eval" and level == "one_digit" else WORDINGS
    while True:
        fact = rng.choice(pool)
        yield rng.choice(wordings).format(f"{fact[0]} {fact[1]} {fact[2]}"), fact


def read_prompts(split: dict, prompts: dict, name: str, seed: int) -> Iterator[dict]:
    """`count` different questions of each level, from a seed; or a file, as in the math task."""
    if split["file"]:
        yield from math.read_prompts(split, prompts, name, seed)
        return
    for level, count in split["count"].items():
        wordings = len(HELD_OUT_WORDINGS if name == "eval" and level == "one_digit" else WORDINGS)
        available = len(facts(level, name)) * wordings
        check_count(name, level, count, available, "questions")
        seen: set[str] = set()
        for question, (a, sign, b) in questions(level, name, random.Random(f"{seed}.{name}.{level}")):
            if len(seen) == count:
                break
            if question not in seen:
                seen.add(question)
                answer = str(APPLY[sign](a, b))
                yield {"id": record_id(question), "question": question, "answer": answer, "level": level}


def worked_examples(cold_start: dict, seed: int) -> Iterator[dict]:
    """Worked answers of both kinds, in auto mode and as triggered, shuffled over levels."""
    if cold_start["file"]:
        yield from math.worked_examples(cold_start, seed)
        return
    rng = random.Random(f"{seed}.cold_start")
    if plain := [level for level, counts in cold_start["count"].items() if not isinstance(counts, dict)]:
        raise BadInput(f"cold_start.count.{plain[0]}: give `direct` and `code`, how many examples answer in each way")
    order = [draw for level, counts in cold_start["count"].items() for draw in _draws(level, counts)]
    rng.shuffle(order)
    streams = {level: questions(level, "train", rng) for level in cold_start["count"]}
    for level, key, trigger in order:
        question, (a, sign, b) = next(streams[level])
        yield {"question": question, "pieces": worked(a, sign, b, key), "trigger": trigger}


def _draws(level: str, counts: dict[str, int]) -> Iterator[tuple[str, str, str]]:
    """(level, path, trigger) per example. In auto mode a fixed share of every level writes code, so that the cold
    start has no preference by level; code examples beyond that share are asked for by the trigger."""
    direct = round(AUTO_SHARE * counts["direct"])
    code = min(counts["code"], round(direct * AUTO_CODE / (1 - AUTO_CODE)))
    for key, auto, total in (("cot", direct, counts["direct"]), ("pot", code, counts["code"])):
        yield from [(level, key, "auto")] * auto + [(level, key, key)] * (total - auto)


def worked(a: int, sign: str, b: int, key: str) -> list[tuple[str, bool]]:
    """Direct: the answer is stated. With a program: what it prints is the answer, and nothing is to be added."""
    result = APPLY[sign](a, b)
    if key == "cot":
        return [(f" The answer is {result}.", True)]
    return [(f"\n```python\nprint({a} {sign} {b})\n```\n```output", True), (f"\n{result}\n```\n", False)]
