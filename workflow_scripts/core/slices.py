"""Choose the prompts that a round answers if it answers only a part of them.

The prompts are put into an endless order, pass after pass, and each round takes the next ones. The order of a pass is
that of a hash of seed, pass and id. It does not depend on the order of the file, and an edited prompt keeps its place.
An added or a removed prompt changes the rounds from its place on: each of them gains one prompt and loses one.
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple


class Slicing(NamedTuple):
    """The division of prompts among rounds."""

    size: int  # prompts per round, at most
    seed: int  # of their order


def slices(ids: Sequence[str], slicing: Slicing) -> Iterator[list[str]]:
    """Yield the ids of the prompts that round 1, 2, … answers, without end.

    A slice begins where the one before ended, and goes on in the next pass where a pass ends. It contains no prompt
    twice: what it has from the end of a pass is postponed in the next pass. If there are fewer prompts than `size`,
    each slice contains all of them.
    """
    size = min(slicing.size, len(ids))
    passes = 0
    waiting: list[str] = []  # the rest of the pass, in order

    while True:
        chosen, waiting = waiting[:size], waiting[size:]

        if len(chosen) < size:
            order = order_of_pass(ids, slicing.seed, passes)
            passes += 1
            used = set(chosen)
            chosen += islice((prompt for prompt in order if prompt not in used), size - len(chosen))
            taken = set(chosen) - used
            waiting = [prompt for prompt in order if prompt not in taken]

        yield chosen


def slice_of(ids: Sequence[str], slicing: Slicing, round: int) -> set[str]:
    """Return the ids of the prompts that a round answers; rounds count from 1."""
    return set(next(islice(slices(ids, slicing), round - 1, None)))


def rounds_per_pass(prompts: int, size: int) -> int:
    """Return how many rounds it takes until all of so many prompts have been answered."""
    return -(-prompts // size)


def order_of_pass(ids: Sequence[str], seed: int, number: int) -> list[str]:
    """Return the ids in the order of a pass over all prompts."""

    def place(prompt: str) -> tuple[bytes, str]:
        return hashlib.blake2b(f"{seed}.{number}.{prompt}".encode(), digest_size=16).digest(), prompt

    return sorted(ids, key=place)
