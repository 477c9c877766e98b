"""Rewards that compare an answer with references: by name, or a function of the user's own in a file.

A reward is a function (answer, references, record) → number, where `record` is the answer's whole record; the larger,
the better. `my_rewards.py:length_penalty` names one in a file.
"""

import importlib.util
import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from workflow_scripts.core.bleu import sentence_bleu, tokens_of
from workflow_scripts.core.records import BadInput

Reward = Callable[[str, Sequence[str], dict], float]


def bleu(answer: str, references: Sequence[str], record: dict) -> float:
    return sentence_bleu(answer, references)


def rouge(answer: str, references: Sequence[str], record: dict) -> float:
    """ROUGE-L (Lin 2004): F1 of the longest common subsequence of lower-case tokens, of the best reference."""
    return max(_rouge_l(tokens_of(answer.lower()), tokens_of(reference.lower())) for reference in references)


def bleu_rouge_f1(answer: str, references: Sequence[str], record: dict) -> float:
    """The harmonic mean of both."""
    both = bleu(answer, references, record), rouge(answer, references, record)
    return 2 * both[0] * both[1] / sum(both) if sum(both) else 0.0


REWARDS: dict[str, Reward] = {"bleu": bleu, "rouge": rouge, "bleu_rouge_f1": bleu_rouge_f1}


@cache
def load(name: str) -> Reward:
    """A reward by its name, or `FILE.py:FUNCTION`. BadInput says what is wrong."""
    if name in REWARDS:
        return REWARDS[name]
    file, _, function = name.rpartition(":")
    if not file.endswith(".py"):
        raise BadInput(f"there is no reward {name!r}; rewards are {', '.join(REWARDS)}, or FILE.py:FUNCTION")
    if not Path(file).is_file():
        raise BadInput(f"reward {name}: there is no file {file}")
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(getattr(module, function, None)):
        raise BadInput(f"reward {name}: {file} has no function {function!r}")
    return getattr(module, function)


def rewarded(reward: Reward, answer: str, references: Sequence[str], record: dict) -> float:
    """The reward of an answer; BadInput names the record if the function fails or gives no finite number."""
    try:
        value = reward(answer, references, record)
    except Exception as error:  # of whatever kind: the function is the user's
        raise BadInput(f"reward: record {record['uid']}: {type(error).__name__}: {error}") from error
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise BadInput(f"reward: record {record['uid']}: should be a finite number, found {value!r}")
    return float(value)


def _rouge_l(answer: list[str], reference: list[str]) -> float:
    from rapidfuzz.distance import LCSseq  # here: a login node may lack it

    common = LCSseq.similarity(answer, reference)
    return 2 * common / (len(answer) + len(reference)) if common else 0.0
