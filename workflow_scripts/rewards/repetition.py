"""Minus the share of n-grams of words that occurred before in the answer, as open-r1's repetition penalty has it.

Words are separated by white space and compared in lower case. An answer with fewer than n words gets 0.
"""

from collections.abc import Sequence
from typing import Any

from workflow_scripts.core.errors import BadInput
from workflow_scripts.rewards import Reward

OPTIONS = {"n": 3}


def make(model: str | None = None, options: dict[str, Any] = OPTIONS) -> Reward:
    n = options["n"]
    if n < 1:
        raise BadInput(f"reward repetition: options.n should be at least 1 word, found {n}")

    def repetition(answer: str, references: Sequence[str], record: dict[str, Any]) -> float:
        words = answer.lower().split()
        ngrams = list(zip(*(words[start:] for start in range(n))))
        return len(set(ngrams)) / len(ngrams) - 1 if ngrams else 0.0

    return repetition
