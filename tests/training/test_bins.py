"""The plan of a training: which rows go through the model together, and in which update."""

import numpy as np
import pytest

from tests.workshop import make_pairs, make_rows
from workflow_scripts.config.sections import Train
from workflow_scripts.core.errors import BadInput
from workflow_scripts.training import bins


def test_the_plan_covers_every_row_once_per_epoch_and_is_the_same_each_time():
    lengths = np.random.default_rng(0).integers(5, 60, 101).tolist()
    planned, steps = bins.plan(lengths, batch_size=16, epochs=3, budget=128, seed=7, world=2)

    assert (planned, steps) == bins.plan(lengths, 16, 3, 128, 7, 2)
    counts = np.bincount([row for bin_ in planned for row in bin_.units])
    assert counts.tolist() == [3] * 101
    assert len(planned) == 3 * 7 * steps * 2
    assert all(sum(lengths[row] for row in bin_.units) <= 128 for bin_ in planned)

    for update in range(21):
        members = planned[update * steps * 2 : (update + 1) * steps * 2]
        rows = sorted(row for member in members for row in member.units)
        assert all(sorted(member.update) == rows for member in members)


def test_updates_per_round_divides_the_rows_evenly():
    planned, steps = bins.plan([10] * 21, 999, 1, 10_000, 0, updates=4)

    assert steps == 1
    assert [len(bin_.units) for bin_ in planned] == [6, 5, 5, 5]
    assert sorted(row for bin_ in planned for row in bin_.units) == list(range(21))


def test_the_plan_of_rows_counts_updates_and_bins_per_process(monkeypatch):
    rows = make_rows(12)
    settings = Train(objective="sft", batch_size=4, epochs=2, tokens_per_bin=1)

    plan = bins.plan_rows(rows, settings, seed=0)
    assert (plan.updates, plan.accumulation, len(plan.bins)) == (6, 4, 24)

    monkeypatch.setenv("WORLD_SIZE", "2")
    plan = bins.plan_rows(rows, settings, seed=0)
    assert (plan.updates, plan.accumulation, len(plan.bins)) == (6, 2, 24)


def test_the_rows_of_a_pair_stay_together():
    rows = make_pairs(3)
    plan = bins.plan_rows(rows, Train(objective="dpo", batch_size=2, tokens_per_bin=1), seed=0)

    assert plan.units == [[0, 1], [2, 3], [4, 5]]
    assert plan.updates == 2


def test_more_updates_than_rows_are_refused():
    settings = Train(objective="sft", updates_per_round=25, epochs=2)

    with pytest.raises(BadInput, match=r"updates_per_round is 25, but there are only 2 × 12 rows"):
        bins.plan_rows(make_rows(12), settings, seed=0)
