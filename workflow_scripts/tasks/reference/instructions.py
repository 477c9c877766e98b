"""Made-up instructions: short requests at three levels, with three references each, and answers to learn from.

The answers of the cold start are mostly terse or beside the point, so the rounds have something to improve. Train and
eval instructions are disjoint: every fifth way to fill an instruction is held out for eval.
"""

import itertools
import json
import random
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.identity import record_id
from workflow_scripts.core.records import Prompt, WorkedExample
from workflow_scripts.tasks.defaults import check_count

Words = dict[str, str]  # what fills the placeholders of an instruction

GOOD_SHARE = 0.2  # share of the cold start's answers that read like a reference

WORDS = {
    "name": ("Anna", "Ben", "Carla", "David", "Emma", "Felix", "Greta", "Hugo", "Ines", "Jonas", "Klara", "Leo"),
    "thing": ("book", "lamp", "cake", "chair", "ticket", "map", "coat", "bag", "ring", "bike", "clock", "plant"),
    "place": ("park", "house", "school", "garden", "market", "bridge", "station", "river", "museum", "harbour"),
}


class Level(NamedTuple):
    """The texts of a level, with placeholders for words."""

    instruction: str
    references: tuple[str, ...]
    weak_answers: tuple[str, ...]  # what the cold start learns beside the references


LEVELS = {
    "greet": Level(
        "Greet {name} at the {place}.",
        (
            "Hello {name}, it is good to see you at the {place} today.",
            "Hi {name}, it is good to see you here at the {place}.",
            "Hello {name}, how good to see you at the {place} today.",
        ),
        ("{name}.", "{place}.", "The {place} is far away from the {place}."),
    ),
    "thank": Level(
        "Thank {name} for the {thing}.",
        (
            "Thank you very much for the {thing}, {name}.",
            "Thank you so much for the {thing}, dear {name}.",
            "Dear {name}, thank you very much for the {thing}.",
        ),
        ("{thing}.", "{name} has a {thing} and a {thing}.", "Thanks."),
    ),
    "place": Level(
        "Say where the {thing} is: {place}.",
        (
            "You can find the {thing} next to the {place}.",
            "You will find the {thing} next to the {place}.",
            "The {thing} can be found next to the {place}.",
        ),
        ("{place}.", "The {thing} is a {thing}.", "I do not know where."),
    ),
}


def fillings(level: str, split: str) -> list[Words]:
    """Return all ways to fill the instruction of a level in a split."""
    if level not in LEVELS:
        raise BadInput(f"there is no level {level!r}; levels are {', '.join(LEVELS)}")

    placeholders = [name for name in WORDS if f"{{{name}}}" in LEVELS[level].instruction]
    combinations = itertools.product(*(WORDS[name] for name in placeholders))
    every = [dict(zip(placeholders, values)) for values in combinations]

    return [words for words in every if is_held_out(words) == (split == "eval")]


def is_held_out(words: Words) -> bool:
    """Return whether the instruction with these words is an eval instruction."""
    return zlib.crc32(json.dumps(words).encode()) % 5 == 0


def made_up_prompts(count: dict[str, int], split: str, seed: int) -> Iterator[Prompt]:
    """Yield `count` different instructions of each level, with all their references."""
    for level, wanted in count.items():
        available = fillings(level, split)
        check_count(split, level, wanted, len(available), "instructions")

        for words in random.Random(f"{seed}.{split}.{level}").sample(available, wanted):
            question = LEVELS[level].instruction.format(**words)
            references = [text.format(**words) for text in LEVELS[level].references]
            yield {"id": record_id(question), "question": question, "reference": references, "level": level}


def made_up_examples(count: dict[str, Any], seed: int) -> Iterator[WorkedExample]:
    """Yield `count` instructions of each level with answers, shuffled over levels. Few of the answers are good."""
    if unusable := [level for level, number in count.items() if not isinstance(number, int)]:
        raise BadInput(f"cold_start.count.{unusable[0]}: give one number, the number of examples")

    rng = random.Random(f"{seed}.cold_start")
    order = [level for level, number in count.items() for _ in range(number)]
    rng.shuffle(order)
    choices = {level: fillings(level, "train") for level in count}

    for level in order:
        words = rng.choice(choices[level])
        is_good = rng.random() < GOOD_SHARE
        answer = rng.choice(LEVELS[level].references if is_good else LEVELS[level].weak_answers)
        yield {
            "question": LEVELS[level].instruction.format(**words),
            "pieces": [(f" {answer.format(**words)}", True)],
            "trigger": "auto",
        }
