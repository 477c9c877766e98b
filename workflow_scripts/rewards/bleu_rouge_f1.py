"""The harmonic mean of BLEU and ROUGE-L."""

from collections.abc import Sequence
from typing import Any

from workflow_scripts.rewards import Reward
from workflow_scripts.rewards.bleu import sentence_bleu
from workflow_scripts.rewards.rouge import rouge

PACKAGES = ("rapidfuzz", "sacrebleu")


def make(model: str | None = None) -> Reward:
    return bleu_rouge_f1


def bleu_rouge_f1(answer: str, references: Sequence[str], record: dict[str, Any]) -> float:
    bleu = sentence_bleu(answer, references)
    overlap = rouge(answer, references, record)
    return 2 * bleu * overlap / (bleu + overlap) if bleu + overlap else 0.0
