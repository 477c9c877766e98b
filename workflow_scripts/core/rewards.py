"""Rewards of answers that have references: by name, or a function of the user's own in a file.

A reward is a function (answer, references, record) → number, where `record` is the answer's whole record; the larger,
the better. `my_rewards.py:length_penalty` names one in a file. Some rewards a model gives (`core/reward_models.py`),
and some are made of several, which are then compared in units of their spread.
"""

import importlib.util
import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean, pstdev

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


FORMULAS: dict[str, Reward] = {"bleu": bleu, "rouge": rouge, "bleu_rouge_f1": bleu_rouge_f1}
JUDGED = ("rm", "bertscore")  # functions of core/reward_models.py: need a model
COMBINED = {"bleu_rm": ("bleu", "rm")}
REWARDS = (*FORMULAS, *JUDGED, *COMBINED)


def parts_of(name: str) -> tuple[str, ...]:
    """The rewards that one is made of: in general itself."""
    return COMBINED.get(name, (name,))


def needs_model(name: str | None) -> bool:
    return name is not None and any(part in JUDGED for part in parts_of(name))


@cache
def load(name: str, model: str | None = None) -> Reward:
    """A reward that is no combination, by its name, or `FILE.py:FUNCTION`. BadInput says what is wrong."""
    if name in FORMULAS:
        return FORMULAS[name]
    if name in JUDGED:
        if not model:
            raise BadInput(f"reward {name}: needs a model (config key reward_model)")
        from workflow_scripts.core import reward_models  # here: it needs torch

        return getattr(reward_models, name)(model)
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


def combined(parts: Sequence[dict[str, float]]) -> list[float]:
    """One reward for each of the answers that are compared: the mean of its parts' z-scores among them, or its only
    part as it is. BLEUBERI's bleu_rm, which took the spread of a micro-batch; here it is that of a prompt's answers."""
    names = list(parts[0]) if parts else []
    if len(names) == 1:
        return [one[names[0]] for one in parts]
    columns = [[one[name] for one in parts] for name in names]
    means = [fmean(column) for column in columns]
    spreads = [pstdev(column) or 1.0 for column in columns]
    return [fmean((one[n] - mean) / spread for n, mean, spread in zip(names, means, spreads)) for one in parts]


def parts(name: str, model: str | None, answer: str, references: Sequence[str], record: dict) -> dict[str, float]:
    """The rewards of an answer that one is made of, by name."""
    return {part: rewarded(load(part, model), answer, references, record) for part in parts_of(name)}


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
