"""Metrics of an evaluation: agreement with reference implementations, and how often intervals and tests are right.

    python -m benchmarks.rewards evaluation

In the simulations, the difficulty of a question is drawn from a beta distribution and its answers are right or wrong
with that probability, so the mean of the distribution is the true accuracy.
"""

import itertools
import math
import random
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import scipy
from scipy.stats import norm, t

from workflow_scripts.core.samples import maj_at_k, pass_at_k
from workflow_scripts.core.significance import NOISE, RESAMPLES, compare, interval, mcnemar, wilson

TRIALS = 2000  # simulated evaluations
ALPHA, BETA = 2.0, 1.5  # of the questions' difficulty
Z = 1.959963984540054  # the 97.5 % quantile of a normal distribution


# ---------------------------------------------------------------- reference implementations


def counted_majority(votes: list[str | None], k: int) -> float:
    """Return maj@k by trying all choices of k samples; the right answer is "right"."""
    wins = []

    for chosen in itertools.combinations(votes, k):
        counts = Counter(vote for vote in chosen if vote is not None)
        most = max(counts.values(), default=0)
        winners = [vote for vote, count in counts.items() if count == most]
        wins.append(winners.count("right") / len(winners) if winners else 0.0)

    return sum(wins) / len(wins)


def difference_of_majorities(rng: random.Random) -> float:
    """Return the largest difference between maj@k and the mean over all choices."""
    worst = 0.0

    for _ in range(200):
        votes = [rng.choice(["right", "a", "b", "c", None]) for _ in range(rng.randint(1, 10))]
        right = [float(vote == "right") for vote in votes]
        for k in range(1, len(votes) + 1):
            worst = max(worst, abs(maj_at_k(votes, right, k) - counted_majority(votes, k)))

    return worst


def difference_of_passes(rng: random.Random) -> float:
    """Return the largest difference between pass@k and the code of Chen et al. 2021 (figure 3)."""
    worst = 0.0

    for _ in range(2000):
        samples = rng.randint(1, 256)
        wrong = rng.randint(0, samples)
        k = rng.randint(1, samples)
        product = 0.0 if wrong < k else float(np.prod(1.0 - k / np.arange(wrong + 1, samples + 1)))
        worst = max(worst, abs(pass_at_k(samples, samples - wrong, k) - (1.0 - product)))

    return worst


def difference_of_intervals(rng: random.Random) -> float:
    """Return the largest difference between a limit of Wilson's interval and its closed form."""
    worst = 0.0

    for _ in range(500):
        trials = rng.randint(1, 5000)
        share = rng.randint(0, trials) / trials
        middle = (share + Z**2 / (2 * trials)) / (1 + Z**2 / trials)
        half = Z / (1 + Z**2 / trials) * math.sqrt(share * (1 - share) / trials + Z**2 / (4 * trials**2))
        limits = wilson(round(share * trials), trials)
        worst = max(worst, abs(limits["low"] - max(0.0, middle - half)), abs(limits["high"] - min(1.0, middle + half)))

    return worst


def difference_of_tests(rng: random.Random) -> float:
    """Return the largest difference between McNemar's p-value and its closed form."""
    worst = 0.0

    for _ in range(500):
        gained, lost = rng.randint(0, 80), rng.randint(0, 80)
        changed = gained + lost
        tail = sum(math.comb(changed, count) for count in range(min(gained, lost) + 1)) / 2**changed
        worst = max(worst, abs(mcnemar(gained, lost) - min(1.0, 2 * tail)))

    return worst


def difference_of_bootstraps(rng: np.random.Generator) -> float:
    """Return the largest difference between limits and p-values of bootstraps and those of plain loops.

    The loops draw the same questions, so that only the arithmetic is compared.
    """
    worst = 0.0

    for questions, samples in ((8, 3), (20, 4), (40, 2)):
        now, before = (answers(rng, rng.beta(ALPHA, BETA, questions), samples) for _ in range(2))
        ids = sorted(now)
        drawn = np.random.default_rng(0).integers(0, questions, (RESAMPLES, questions)).tolist()
        tail = float(norm.cdf(t.ppf(0.025, questions - 1) * math.sqrt(questions / (questions - 1))))

        means = [pooled_mean(now, ids, row) for row in drawn]
        limits = interval(now)
        assert limits is not None and limits["method"] == "bootstrap"
        worst = max(worst, abs(limits["low"] - quantile(means, tail)), abs(limits["high"] - quantile(means, 1 - tail)))

        differences = [mean - pooled_mean(before, ids, row) for mean, row in zip(means, drawn)]
        own = pooled_mean(now, ids, range(questions)) - pooled_mean(before, ids, range(questions))
        extreme = sum(abs(difference - own) >= abs(own) - 1e-9 for difference in differences)
        comparison = compare(now, before)
        assert comparison is not None and comparison["test"] == "bootstrap"
        worst = max(worst, abs(comparison["p"] - (1 + extreme) / (1 + RESAMPLES)))
        worst = max(worst, abs(comparison["low"] - quantile(differences, tail)))
        worst = max(worst, abs(comparison["high"] - quantile(differences, 1 - tail)))

    return worst


def pooled_mean(values: dict[str, list[float]], ids: list[str], chosen: Iterable[int]) -> float:
    """Return the mean of all answers to the chosen questions."""
    answers = [value for number in chosen for value in values[ids[number]]]
    return math.fsum(answers) / len(answers)


def quantile(values: list[float], share: float) -> float:
    """Return a quantile, by linear interpolation between two neighbours."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


# ---------------------------------------------------------------- simulations


def answers(rng: np.random.Generator, difficulty: np.ndarray, samples: int) -> dict[str, list[float]]:
    """Return right and wrong answers by question."""
    right = rng.random((len(difficulty), samples)) < difficulty[:, None]
    return {f"q{number}": row.astype(float).tolist() for number, row in enumerate(right)}


def coverage(questions: int, samples: int) -> float:
    """Return the share of intervals that contain the true accuracy."""
    rng = np.random.default_rng(0)
    hits = 0

    for _ in range(TRIALS):
        limits = interval(answers(rng, rng.beta(ALPHA, BETA, questions), samples))
        assert limits is not None
        hits += limits["low"] <= ALPHA / (ALPHA + BETA) <= limits["high"]

    return hits / TRIALS


def false_alarms(questions: int, samples: int) -> float:
    """Return the share of pairs of equally good rounds whose difference is not within noise."""
    rng = np.random.default_rng(1)
    alarms = 0

    for _ in range(TRIALS):
        difficulty = rng.beta(ALPHA, BETA, questions)
        comparison = compare(answers(rng, difficulty, samples), answers(rng, difficulty, samples))
        assert comparison is not None
        alarms += comparison["p"] < NOISE

    return alarms / TRIALS


# ---------------------------------------------------------------- results


def measure() -> list[dict[str, Any]]:
    """Return the differences from reference implementations and the shares of the simulations."""
    rng = random.Random(0)
    differences = {
        "pass_at_k": ("numpy, Chen et al. 2021", np.__version__, difference_of_passes(rng)),
        "maj_at_k": ("all choices of k samples", "", difference_of_majorities(rng)),
        "wilson": ("closed form", f"scipy {scipy.__version__}", difference_of_intervals(rng)),
        "mcnemar": ("closed form", f"scipy {scipy.__version__}", difference_of_tests(rng)),
        "bootstrap": ("loops over the same draws", "", difference_of_bootstraps(np.random.default_rng(2))),
    }
    results: list[dict[str, Any]] = [
        {
            "name": f"{name}_largest_difference",
            "value": difference,
            "unit": "absolute",
            "peer_name": peer,
            "peer_version": version,
        }
        for name, (peer, version, difference) in differences.items()
    ]

    for questions, samples in ((200, 1), (60, 4), (100, 8)):
        name = f"{questions}_questions_{samples}_samples"
        results.append(simulated(f"coverage_{name}", coverage(questions, samples)))
        results.append(simulated(f"false_alarms_{name}", false_alarms(questions, samples)))

    return results


def simulated(name: str, share: float) -> dict[str, Any]:
    """Return the result of a simulation, with Wilson's interval of its share."""
    limits = wilson(round(share * TRIALS), TRIALS)
    return {"name": name, "value": share, "interval": [limits["low"], limits["high"]], "unit": "share"}
