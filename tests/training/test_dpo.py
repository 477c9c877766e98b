"""The stage train on preference pairs."""

import math

import pytest

from tests.workshop import TORCHRUN, Workshop, make_pairs
from workflow_scripts.core.errors import BadInput


@pytest.fixture
def workshop(tmp_path):
    """Return a workshop whose data are eight preference pairs."""
    workshop = Workshop(tmp_path)
    workshop.write(make_pairs())
    return workshop


def reference(workshop: Workshop) -> tuple:
    """Return the options that name the start as the reference, with its log-probs."""
    return "--ref-logp", workshop.logp(), "--reference", workshop.checkpoint


@pytest.mark.long
@pytest.mark.parametrize("launcher", [(), TORCHRUN], ids=["one", "two_ranks"])
def test_dpo_begins_at_ln_2(workshop, launcher):
    settings = {"objective": "dpo", "nll_weight": 0, "batch_size": 8, "epochs": 20}
    history = workshop.train("dpo", *reference(workshop), launcher=launcher, **settings)["history"]

    assert history[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert history[-1]["preferred"] == 1
    assert history[-1]["margin"] > 0.1


def test_dpo_does_not_depend_on_the_bins_where_a_pair_comes_twice_in_an_update(workshop):
    workshop.write(make_pairs(3))
    workshop.train("moved", objective="sft", lr=1e-2)
    moved = workshop.folder / "moved/checkpoint.json"
    options = reference(workshop)

    losses = []
    for budget in (1, 10_000):
        settings = {"objective": "dpo", "updates_per_round": 1, "epochs": 2, "tokens_per_bin": budget}
        history = workshop.train(f"bins{budget}", *options, model=moved, **settings)["history"]
        losses.append(history[0]["loss"])

    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert abs(losses[0] - math.log(2)) > 0.01


def test_dpo_refuses_rows_without_a_partner(workshop):
    workshop.write([row | {"pair": None} for row in make_pairs()])

    with pytest.raises(BadInput, match="preference pairs, but row r0 is not in one"):
        workshop.train("refused", *reference(workshop), objective="dpo")


def test_a_pair_that_is_too_long_goes_as_a_whole(workshop):
    pairs = make_pairs()
    pairs[1]["tokens"] = pairs[1]["tokens"] * 20
    pairs[1]["mask"] = pairs[1]["mask"] * 20
    workshop.write(pairs)

    trained = workshop.train("shorter", *reference(workshop), objective="dpo", max_length=40)

    assert trained["rows"] == 14
    assert trained["rejects"] == {"longer than max_length 40": 2}

    with pytest.raises(BadInput, match=r"12.5% of the rows are rejected .* train.max_rejected allows 10.0%"):
        workshop.train("refused", *reference(workshop), objective="dpo", max_length=40, max_rejected=0.1)
