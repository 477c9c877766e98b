"""Metrics of several sampled answers to a question: avg@k, pass@k and maj@k.

All three are unbiased: the value for k of a question with n answers is the mean over all ways to choose k of them.
avg@k is thus the mean of all n answers for any k.
"""

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np


def sizes(samples: int) -> list[int]:
    """Return the values of k that are reported for a number of samples: powers of two up to it, and it itself."""
    powers = [2**exponent for exponent in range(samples.bit_length()) if 2**exponent <= samples]
    return sorted({*powers, samples})


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Return the probability that at least one of k answers is right (Chen et al. 2021, arXiv 2107.03374, eq. 1)."""
    return 1.0 - math.comb(samples - right, k) / math.comb(samples, k)


def maj_at_k(votes: Sequence[str | None], right: Sequence[float], k: int) -> float:
    """Return the probability that the answer which most of k samples state is right.

    Args:
        votes: the final answer of each sample, so that equal answers are equal texts; None abstains.
        right: 1 for each right sample, else 0. Equal answers should agree; if they do not, their mean counts.
        k: the number of samples that vote.

    A tie is decided by lot. If all abstain, the vote is wrong.
    """
    counts = Counter(vote for vote in votes if vote is not None)
    values = {vote: 0.0 for vote in counts}
    for vote, is_right in zip(votes, right, strict=True):
        if vote is not None:
            values[vote] += is_right / counts[vote]

    blank = len(votes) - counts.total()
    probability = 0.0
    for vote, value in values.items():
        if value:
            others = tuple(sorted(count for other, count in counts.items() if other != vote))
            probability += value * share_of_wins(counts[vote], others, blank, k)

    return probability


@lru_cache(maxsize=2**16)
def share_of_wins(own: int, others: tuple[int, ...], blank: int, k: int) -> float:
    """Return the probability that an answer wins the vote of k of the samples; a tie among t answers counts as 1/t.

    Args:
        own: samples with this answer.
        others: samples with each other answer.
        blank: samples that abstain.
        k: samples that vote, drawn without replacement.

    Draws without replacement are independent binomial draws given their sum. So for each number of own votes, a table
    over (number of ties, votes so far) takes in the other answers one by one, and its entry for k votes is divided by
    the probability of k votes.
    """
    total = own + sum(others) + blank
    if k == total:
        ties = others.count(own)
        return 1 / (1 + ties) if own >= max(others, default=0) else 0.0

    rate = k / total
    probability = 0.0
    for votes in range(1, min(own, k) + 1):
        rest = k - votes
        table = np.zeros((rest // votes + 1, rest + 1))
        drawn = binomial(blank, rate)[: rest + 1]
        table[0, : len(drawn)] = drawn

        for count in others:
            table = with_votes(table, count, votes, rate)

        by_ties = table[:, rest]
        probability += binomial(own, rate)[votes] * float((by_ties / np.arange(1, len(by_ties) + 1)).sum())

    return probability / float(binomial(total, rate)[k])


def with_votes(table: np.ndarray, count: int, most: int, rate: float) -> np.ndarray:
    """Return the table after an answer with `count` samples has drawn its votes, at most `most` of them."""
    width = table.shape[1]
    result = np.zeros_like(table)

    for votes in range(min(count, most - 1, width - 1) + 1):
        result[:, votes:] += binomial(count, rate)[votes] * table[:, : width - votes]
    if count >= most and most < width:
        result[1:, most:] += binomial(count, rate)[most] * table[:-1, : width - most]

    return result


@lru_cache(maxsize=2**12)
def binomial(count: int, rate: float) -> np.ndarray:
    """Return the probabilities of 0 to `count` successes."""
    from scipy.stats import binom

    return binom.pmf(np.arange(count + 1), count, rate)
