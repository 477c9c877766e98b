"""pass@k and maj@k: against other formulas, and against counting all choices of k samples."""

import itertools
import random
from collections import Counter

import numpy as np
import pytest

from workflow_scripts.core.samples import maj_at_k, pass_at_k, sizes

EXACT = 1e-12


def test_pass_at_k_is_the_published_formula():
    rng = random.Random(0)

    for _ in range(300):
        samples = rng.randint(1, 256)
        right = rng.randint(0, samples)
        k = rng.randint(1, samples)
        # Chen et al. 2021, figure 3
        wrong = samples - right
        expected = 1.0 if wrong < k else 1.0 - np.prod(1.0 - k / np.arange(wrong + 1, samples + 1))
        assert abs(pass_at_k(samples, right, k) - expected) < EXACT


def counted(votes, right, k):
    """Return maj@k by trying all choices of k samples."""
    wins = []

    for chosen in itertools.combinations(range(len(votes)), k):
        counts = Counter(votes[i] for i in chosen if votes[i] is not None)
        most = max(counts.values(), default=0)
        winners = [vote for vote, count in counts.items() if count == most]
        values = [right[votes.index(winner)] for winner in winners]
        wins.append(sum(values) / len(values) if values else 0.0)

    return sum(wins) / len(wins)


def test_maj_at_k_is_the_mean_over_all_choices():
    rng = random.Random(1)

    for _ in range(150):
        votes = [rng.choice(["right", "a", "b", "c", None]) for _ in range(rng.randint(1, 9))]
        right = [float(vote == "right") for vote in votes]
        for k in range(1, len(votes) + 1):
            assert abs(maj_at_k(votes, right, k) - counted(votes, right, k)) < EXACT


def test_one_vote_is_one_answer():
    votes = ["7", "8", "7", None]
    assert maj_at_k(votes, [1.0, 0.0, 1.0, 0.0], 1) == pytest.approx(0.5)
    assert maj_at_k(votes, [1.0, 0.0, 1.0, 0.0], 4) == 1
    assert maj_at_k([None, None], [0.0, 0.0], 2) == 0


def test_many_samples_stay_within_bounds():
    votes = [str(number % 7) for number in range(512)]
    right = [float(vote == "0") for vote in votes]
    assert 1 / 7 < maj_at_k(votes, right, 256) < 1


def test_sizes_are_powers_of_two_and_the_number_of_samples():
    assert sizes(1) == [1]
    assert sizes(8) == [1, 2, 4, 8]
    assert sizes(12) == [1, 2, 4, 8, 12]
