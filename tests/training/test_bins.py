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


@pytest.mark.parametrize(("rows", "sizes"), [(1025, [1025]), (1100, [1024, 76]), (1087, [1087]), (1, [1])])
def test_few_rows_that_are_left_over_join_the_last_update(rows, sizes):
    planned, _ = bins.plan([10] * rows, 1024, 1, 10**6, 0)
    settings = Train(objective="sft", batch_size=1024)

    assert [len(bin_.units) for bin_ in planned] == sizes
    assert settings.updates(rows) == len(sizes)


def test_packing_is_first_fit_decreasing():
    """The tree of free tokens finds what a search through all bins finds."""
    rng = np.random.default_rng(0)

    for _ in range(100):
        lengths = rng.integers(1, 50, rng.integers(1, 60)).tolist()
        budget = int(rng.integers(20, 80))
        members: list[list[int]] = []
        for unit in sorted(range(len(lengths)), key=lambda u: (-lengths[u], u)):
            with_room = [m for m in members if sum(lengths[u] for u in m) + lengths[unit] <= budget]
            if with_room:
                with_room[0].append(unit)
            else:
                members.append([unit])

        expected = [sorted(m, key=lambda u: (lengths[u], u)) for m in members]
        assert bins.pack(range(len(lengths)), lengths, budget) == expected


@pytest.mark.parametrize(("median", "longest", "world", "least"), [
    (600, 2400, 8, 0.98), (700, 2000, 8, 0.98), (600, 2400, 16, 0.96), (700, 2000, 16, 0.96),
])  # fmt: skip
def test_ranks_have_equally_many_tokens(median, longest, world, least):
    """Updates of 128 rows of the lengths of the recipes math and code: the share of the tokens of the fullest rank."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(median), 0.5, 20 * 128), 4, longest).astype(int).tolist()
    planned, _ = bins.plan(lengths, 128, 1, 8192, 0, world)

    loads = np.array([sum(lengths[u] for u in bin_.units) for bin_ in planned]).reshape(-1, world)
    assert loads.sum() / (world * loads.max(axis=1).sum()) > least
    assert loads.max() <= 8192
