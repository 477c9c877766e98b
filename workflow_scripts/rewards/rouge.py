"""ROUGE-L (Lin 2004): the F1 of the longest common subsequence of lower-case tokens, against the best reference."""

from collections.abc import Sequence
from typing import Any

from workflow_scripts.rewards import Reward
from workflow_scripts.rewards.bleu import tokens_of

PACKAGES = ("rapidfuzz", "sacrebleu")


def make(model: str | None = None) -> Reward:
    return rouge


def rouge(answer: str, references: Sequence[str], record: dict[str, Any]) -> float:
    return max(rouge_l(tokens_of(answer.lower()), tokens_of(reference.lower())) for reference in references)


def rouge_l(answer: list[str], reference: list[str]) -> float:
    """Return ROUGE-L's F1 of two token lists."""
    from rapidfuzz.distance import LCSseq  # imported here because a login node may lack it

    common = LCSseq.similarity(answer, reference)
    return 2 * common / (len(answer) + len(reference)) if common else 0.0
