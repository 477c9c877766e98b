"""The prompts of a round: parts of all prompts, pass after pass, in an order that edits leave alone."""

from itertools import islice

import pytest

from workflow_scripts.core.slices import Slicing, rounds_per_pass, slice_of, slices

IDS = [f"q{number}" for number in range(50)]


def first(count: int, ids=IDS, size: int = 8, seed: int = 0) -> list[list[str]]:
    return list(islice(slices(ids, Slicing(size, seed)), count))


@pytest.mark.parametrize(
    ("prompts", "size"), [(50, 8), (50, 10), (50, 27), (50, 49), (50, 50), (7, 20), (1, 1), (3, 2)]
)
def test_each_pass_contains_each_prompt_once_and_no_slice_has_one_twice(prompts, size):
    ids = IDS[:prompts]
    parts = first(60, ids, size)

    assert all(len(part) == len(set(part)) == min(size, prompts) for part in parts)
    order = [prompt for part in parts for prompt in part]
    for start in range(0, len(order) - prompts, prompts):
        assert sorted(order[start : start + prompts]) == sorted(ids)
    assert len(set(order[: rounds_per_pass(prompts, size) * size])) == prompts


def test_the_order_follows_from_ids_and_seed_and_changes_with_each_pass():
    assert first(9) == first(9, IDS[::-1])
    assert first(9) != first(9, seed=1)
    one, two = first(2, size=50)
    assert one != two
    assert slice_of(IDS, Slicing(8, 0), 9) == set(first(9)[8])


def test_an_added_or_removed_prompt_changes_no_earlier_round_and_one_prompt_of_each_later_one():
    before = first(6)
    order = [prompt for part in before for prompt in part]

    for removed in order[:40:7]:
        after = first(6, [prompt for prompt in IDS if prompt != removed])
        place = order.index(removed) // 8
        assert after[:place] == before[:place]
        assert all(len(set(new) - set(old)) == 1 for new, old in zip(after[place:], before[place:]))
