"""Advantages: rewards compared within groups, on any scale."""

import math
from collections import Counter

import pytest

from workflow_scripts.core.advantages import advantages, filter_rows
from workflow_scripts.core.errors import BadInput


@pytest.mark.parametrize(
    ("kind", "right", "expected"),
    [
        ("raw", None, [1, 0, 1, 1, 0]),
        ("sign", None, [1, -1, 1, 1, -1]),
        ("group", None, [0.5, -0.5, None, None, None]),
        ("group_std", None, [1, -1, None, None, None]),
        ("group", 1.0, [0.5, -0.5, 1, 1, None]),
        ("group_std", 1.0, [1, -1, 1, 1, None]),
        ("rloo", None, [1, -1, None, None, None]),
        ("rloo", 1.0, [1, -1, 1, 1, None]),
    ],
)
def test_kinds(kind, right, expected):
    assert advantages([1.0, 0.0, 1.0, 1.0, 0.0], ["a", "a", "b", "b", "c"], kind, right) == expected


def test_rloo_compares_with_the_mean_of_the_other_rewards():
    rewards = [0.2, 0.9, 0.4, 3.0]
    others = [sum(rewards) - reward for reward in rewards]

    expected = [reward - rest / 3 for reward, rest in zip(rewards, others)]
    assert advantages(rewards, ["a"] * 4, "rloo") == pytest.approx(expected)


def test_batch_std_compares_all_rows_whatever_their_group():
    rewards = [1.0, 1.0, 0.0, 2.0]
    groups = ["a", "a", "b", "b"]

    root = math.sqrt(0.5)
    assert advantages(rewards, groups, "batch_std", right=1.0) == pytest.approx([0, 0, -1 / root, 1 / root])
    assert advantages(rewards, groups, "batch_std", epsilon=0.1)[3] == pytest.approx(1 / (root + 0.1))
    assert advantages([1.0, 1.0], ["a", "b"], "batch_std", right=1.0) == [None, None]


def test_advantages_are_clipped_on_both_sides():
    assert advantages([-3.0, 3.0, 1.0], ["a", "b", "c"], "raw", limit=2) == [-2, 2, 1]
    assert advantages([1.0, 1.0], ["a", "a"], "group", limit=2) == [None, None]


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1.0, 100.0, 1e9])
def test_variance_is_judged_on_the_scale_of_the_rewards(scale):
    rewards = [0.3 * scale, (0.1 + 0.2) * scale, 0.3 * scale, 0.7 * scale]
    values = advantages(rewards, ["a", "a", "b", "b"], "group_std")

    assert values[:2] == [None, None]
    assert values[2:] == pytest.approx([-1, 1])


def test_rewards_that_cancel_to_nearly_nothing_have_no_variance():
    assert advantages([0.1 + 0.2 - 0.3, 0.0, 1.0, -1.0], ["a", "a", "b", "b"], "group_std") == [None, None, 1, -1]


def test_equal_rewards_above_one_are_no_right_answers():
    assert advantages([16.0, 16.0, 1.0, 1.0], ["a", "a", "b", "b"], "group", right=1.0) == [None, None, 1, 1]


def test_float32_rewards_that_are_one_third_are_equal():
    thirds = [1 / 3, 0.3333333432674408, 0.33333331346511841]  # in float64, and the neighbours in float32
    assert advantages(thirds, ["a"] * 3, "group") == [None] * 3


def test_an_epsilon_keeps_rewards_that_are_nearly_equal_near_zero():
    nearly = [0.31, 0.31, 0.31, 0.31003]

    assert max(advantages(nearly, ["a"] * 4, "group_std")) == pytest.approx(1.73, abs=0.01)
    assert max(advantages(nearly, ["a"] * 4, "group_std", epsilon=1e-4)) == pytest.approx(0.2, abs=0.01)


def test_group_std_has_mean_0_and_standard_deviation_1():
    values = advantages([-2.5, 0.0, 4.0, 11.0], ["a"] * 4, "group_std")

    assert sum(values) == pytest.approx(0)
    assert math.fsum(v * v for v in values) / 4 == pytest.approx(1)


@pytest.mark.parametrize("reward", [-0.5, 1.5])
def test_signs_of_rewards_on_another_scale_are_refused(reward):
    with pytest.raises(BadInput, match=rf"must lie in \[0, 1\], found {reward}"):
        advantages([0.0, reward], ["a", "a"], "sign")


def test_no_rewards_give_no_advantages():
    assert advantages([], [], "group") == []


def test_posonly_keeps_rewards_above_the_threshold_and_counts_the_others():
    rows = [{"reward": reward} for reward in (0.0, 0.75, 0.76)]
    dropped = Counter()

    assert filter_rows(rows, {"data_filter": "posonly", "threshold": 0.75}, dropped) == [{"reward": 0.76}]
    assert dropped == {"reward of 0.75 or less": 2}
    assert filter_rows(rows, {"data_filter": "none", "threshold": 0.75}, dropped) == rows
