"""Confidence intervals of means over questions, and paired tests of two checkpoints' answers to the same questions.

The values of a metric come by question, because the samples of one answer to a question depend on one another: what is
resampled is questions. Results are the same each time, since the resampling has a fixed seed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Values = Mapping[str, Sequence[float]]  # the values of a metric, one per answer, by the id of the question

CONFIDENCE = 0.95
NOISE = 0.05  # a difference whose p-value is not below this is within noise
RESAMPLES = 9999
CHUNK = 4_000_000  # numbers that a batch of resamples holds


def interval(values: Values) -> dict[str, Any] | None:
    """Return the 95 % confidence interval of the mean over all answers: low, high and method.

    Wilson's score interval (Wilson 1927) if each question has one answer and all values are 0 or 1. Otherwise the
    bootstrap over questions. If it sees no variance because all answers are right, or all are wrong, Wilson's interval
    with the questions as its sample size stands in. A single question with other values has no interval: None.
    """
    sums, counts = totals(values)

    if not len(sums):
        return None
    if is_binary(values):
        is_unanimous = sums.sum() in (0, counts.sum())
        if counts.max() == 1 or is_unanimous:
            return wilson(int((sums > 0).sum()), len(sums)) | {"method": "wilson"}
    if len(sums) == 1:
        return None

    low, high, _ = bootstrap(sums, counts)
    return {"low": low, "high": high, "method": "bootstrap"}


def compare(now: Values, before: Values) -> dict[str, Any] | None:
    """Return the difference of two means over the questions that both have, and the p-value of a paired test.

    If each question has one answer and all values are 0 or 1, the test is McNemar's exact one (McNemar 1947), and
    `gained` and `lost` count the questions that are right now only and before only. Otherwise it is a bootstrap over
    questions: `low` and `high` are the interval of the difference, and `p` is the share of resamples that deviate from
    the difference by at least its size. None if there is no common question.
    """
    common = sorted(now.keys() & before.keys())
    if not common:
        return None

    now = {question: now[question] for question in common}
    before = {question: before[question] for question in common}
    sums, counts = totals(now)
    sums_before, counts_before = totals(before)
    difference = float(sums.sum() / counts.sum() - sums_before.sum() / counts_before.sum())
    result: dict[str, Any] = {"difference": difference, "questions": len(common)}

    has_one_answer = counts.max() == counts_before.max() == 1
    if has_one_answer and is_binary(now) and is_binary(before):
        gained = int((sums > sums_before).sum())
        lost = int((sums < sums_before).sum())
        return result | {"p": mcnemar(gained, lost), "test": "mcnemar", "gained": gained, "lost": lost}
    if len(common) == 1:
        return result | {"p": 1.0, "test": "none"}

    low, high, resampled = bootstrap(sums, counts, sums_before, counts_before)
    deviations = np.abs(resampled - difference)
    extreme = int((deviations >= abs(difference) * (1 - 1e-9)).sum())
    p = (1 + extreme) / (1 + RESAMPLES)
    return result | {"p": p, "test": "bootstrap", "low": low, "high": high}


# ---------------------------------------------------------------- the methods


def wilson(successes: int, trials: int) -> dict[str, float]:
    """Return Wilson's score interval of a proportion."""
    from scipy.stats import binomtest

    limits = binomtest(successes, trials).proportion_ci(CONFIDENCE, method="wilson")
    return {"low": float(limits.low), "high": float(limits.high)}


def mcnemar(gained: int, lost: int) -> float:
    """Return the exact two-sided p-value of McNemar's test: a changed question is gained or lost with equal odds."""
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost, 0.5).pvalue) if gained + lost else 1.0


def bootstrap(
    sums: np.ndarray, counts: np.ndarray, sums_before: np.ndarray | None = None, counts_before: np.ndarray | None = None
) -> tuple[float, float, np.ndarray]:
    """Return (low, high, resampled statistics) of a mean over answers, or of the difference of two means.

    Args:
        sums: the sum of a question's values.
        counts: the number of a question's answers.
        sums_before: the same for the answers that are compared with.
        counts_before: likewise.

    Questions are resampled. The limits are percentiles of the resampled statistics, expanded for the number n of
    questions (Hesterberg 2015, "What Teachers Should Know About the Bootstrap", section 4.3): the plain percentile
    interval is too narrow by sqrt((n - 1) / n) and ignores that the variance is estimated.
    """
    from scipy import stats

    size = len(sums)
    tail = float(stats.norm.cdf(stats.t.ppf((1 - CONFIDENCE) / 2, size - 1) * np.sqrt(size / (size - 1))))

    def statistic(*parts: np.ndarray, axis: int = -1) -> np.ndarray:
        means = parts[0].sum(axis) / parts[1].sum(axis)
        return means - parts[2].sum(axis) / parts[3].sum(axis) if len(parts) > 2 else means

    result = stats.bootstrap(
        [part for part in (sums, counts, sums_before, counts_before) if part is not None],
        statistic,
        n_resamples=RESAMPLES,
        batch=max(1, CHUNK // size),
        vectorized=True,
        paired=True,
        confidence_level=1 - 2 * tail,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    limits = result.confidence_interval
    return float(limits.low), float(limits.high), result.bootstrap_distribution


# ---------------------------------------------------------------- values


def totals(values: Values) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum and the number of each question's values, in the order of the questions' ids."""
    questions = sorted(question for question, of_question in values.items() if len(of_question))
    sums = np.array([float(sum(values[question])) for question in questions])
    counts = np.array([float(len(values[question])) for question in questions])
    return sums, counts


def is_binary(values: Values) -> bool:
    """Return whether all values are 0 or 1."""
    return all(value in (0, 1) for of_question in values.values() for value in of_question)
