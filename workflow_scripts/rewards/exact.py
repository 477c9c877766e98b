"""1 if the answer reads like a reference, apart from white space and forms of characters (NFKC), else 0."""

from collections.abc import Sequence
from typing import Any

from workflow_scripts.core.identity import normalise
from workflow_scripts.rewards import Reward


def make(model: str | None = None) -> Reward:
    return exact


def exact(answer: str, references: Sequence[str], record: dict[str, Any]) -> float:
    return float(normalise(answer) in map(normalise, references))
