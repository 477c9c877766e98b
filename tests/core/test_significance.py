"""Confidence intervals and paired tests: against closed forms, against plain code, and by how often they are right."""

import math

import numpy as np
import pytest

from workflow_scripts.core import significance
from workflow_scripts.core.significance import compare, interval, mcnemar, wilson

EXACT = 1e-12


def of_questions(rows):
    """Return values by question: one row of values per question."""
    return {f"q{number}": list(map(float, row)) for number, row in enumerate(rows)}


# ---------------------------------------------------------------- closed forms


def test_wilson_is_its_closed_form():
    rng = np.random.default_rng(0)
    z = 1.959963984540054

    for trials in rng.integers(1, 2000, 200):
        successes = int(rng.integers(0, trials + 1))
        share = successes / trials
        middle = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
        half = z / (1 + z**2 / trials) * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
        limits = wilson(successes, int(trials))
        assert abs(limits["low"] - max(0, middle - half)) < EXACT
        assert abs(limits["high"] - min(1, middle + half)) < EXACT


def test_mcnemar_is_its_closed_form():
    rng = np.random.default_rng(1)

    for gained, lost in rng.integers(0, 60, (200, 2)).tolist():
        changed = gained + lost
        tail = sum(math.comb(changed, i) for i in range(min(gained, lost) + 1)) / 2**changed
        assert abs(mcnemar(gained, lost) - min(1.0, 2 * tail)) < EXACT


@pytest.mark.parametrize("samples", [1, 4])
def test_the_bootstrap_is_that_of_plain_code(samples):
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(23, samples))
    limits = interval(of_questions(rows))
    assert limits is not None

    questions = sorted(of_questions(rows))
    ordered = np.array([of_questions(rows)[question] for question in questions])
    draws = np.random.default_rng(0).integers(0, 23, (significance.RESAMPLES, 23))
    means = [ordered[draw].mean() for draw in draws]

    from scipy.stats import norm, t

    tail = norm.cdf(t.ppf(0.025, 22) * math.sqrt(23 / 22))
    low, high = np.percentile(means, [100 * tail, 100 * (1 - tail)])
    assert abs(limits["low"] - low) < EXACT
    assert abs(limits["high"] - high) < EXACT
    assert limits["method"] == "bootstrap"


def test_the_paired_test_is_that_of_plain_code():
    rng = np.random.default_rng(3)
    before = rng.random((31, 2))
    now = before + rng.normal(0.05, 0.3, (31, 2))
    comparison = compare(of_questions(now), of_questions(before))
    assert comparison is not None and comparison["test"] == "bootstrap"

    questions = sorted(of_questions(now), key=str)
    order = [int(question[1:]) for question in questions]
    differences = (now - before)[order].mean(1)
    draws = np.random.default_rng(0).integers(0, 31, (significance.RESAMPLES, 31))
    deviations = np.abs(differences[draws].mean(1) - differences.mean())
    extreme = (deviations >= abs(differences.mean())).sum()

    assert abs(comparison["difference"] - differences.mean()) < EXACT
    assert abs(comparison["p"] - (1 + extreme) / (1 + significance.RESAMPLES)) < EXACT


# ---------------------------------------------------------------- which method, and special cases


def test_one_answer_per_question_has_wilsons_interval():
    limits = interval(of_questions([[1], [1], [0], [1]]))
    assert limits == wilson(3, 4) | {"method": "wilson"}


@pytest.mark.parametrize("value", [0, 1])
def test_an_interval_has_a_width_if_all_answers_are_right_or_all_are_wrong(value):
    limits = interval(of_questions([[value] * 4] * 50))
    assert limits is not None
    assert limits["high"] - limits["low"] > 0.05
    assert limits["low"] <= value <= limits["high"]


def test_what_has_no_interval():
    assert interval({}) is None
    assert interval(of_questions([[0.3, 0.4]])) is None


def test_questions_with_fewer_answers_weigh_less():
    limits = interval(of_questions([[1, 1, 1, 1], [0], [1, 0], [0, 0]]))
    assert limits is not None
    assert limits["low"] <= 5 / 9 <= limits["high"]


def test_only_common_questions_are_compared():
    now = of_questions([[1], [1], [1], [0]])
    before = {question: values for question, values in of_questions([[0], [0], [1]]).items()} | {"other": [0.0]}
    comparison = compare(now, before)
    assert comparison is not None
    assert (comparison["questions"], comparison["gained"], comparison["lost"]) == (3, 2, 0)
    assert comparison["difference"] == pytest.approx(2 / 3)
    assert comparison["p"] == 0.5
    assert compare(now, {"other": [1.0]}) is None


def test_equal_answers_do_not_differ():
    values = of_questions(np.random.default_rng(0).random((20, 3)))
    comparison = compare(values, values)
    assert comparison is not None
    assert (comparison["difference"], comparison["p"]) == (0, 1)
    assert comparison["p"] >= significance.NOISE


def test_results_do_not_depend_on_the_order_of_questions():
    values = of_questions(np.random.default_rng(0).random((20, 3)))
    turned = dict(reversed(values.items()))
    assert interval(values) == interval(turned)
    assert compare(values, {}) is None


# ---------------------------------------------------------------- how often they are right


def answers_of(rng, questions, samples):
    """Return right and wrong answers to questions of different difficulty, and the expected accuracy."""
    spread = rng.beta(2, 1.5, questions)
    return of_questions(rng.random((questions, samples)) < spread[:, None]), 2 / 3.5


@pytest.mark.parametrize("questions, samples", [(200, 1), (60, 4)])
def test_95_of_100_intervals_contain_the_truth(questions, samples):
    rng = np.random.default_rng(4)
    hits = 0

    for _ in range(500):
        values, truth = answers_of(rng, questions, samples)
        limits = interval(values)
        assert limits is not None
        hits += limits["low"] <= truth <= limits["high"]

    assert 0.93 <= hits / 500 <= 0.97
