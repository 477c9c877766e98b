"""Objectives: values and gradients by hand, and the exact divergences that their KL terms estimate."""

import math

import pytest
import torch

from workflow_scripts.config.sections import Train
from workflow_scripts.training import objectives
from workflow_scripts.training.objectives import Tokens


def loss(name: str, tokens: Tokens, **settings) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return an objective's sum over a bin, and its metrics."""
    return objectives.load(name).loss(tokens, Train(objective=name, **settings))


def make_tokens(logp, behaviour, advantage, foreign: bool = False, row=None, pair=None, reference=None) -> Tokens:
    """Return sampled tokens, each a row of its own unless `row` says otherwise."""
    rows = torch.tensor(range(len(logp)) if row is None else row, dtype=torch.int64)
    return Tokens(
        logp=torch.tensor(logp, requires_grad=True),
        behaviour=torch.tensor(behaviour),
        reference=torch.tensor(behaviour if reference is None else reference),
        advantage=torch.tensor(advantage),
        foreign=torch.full((len(logp),), foreign),
        length=torch.bincount(rows, minlength=1)[rows].float(),
        row=rows,
        pair=rows if pair is None else torch.tensor(pair, dtype=torch.int64),
        start_kl=torch.zeros(len(logp)),
    )


# ---------------------------------------------------------------- clip


@pytest.mark.parametrize(
    ("ratio", "advantage", "gain", "gradient"),
    [
        (1.0, 1.0, 1.0, 1.0),
        (1.5, 1.0, 1.3, 0.0),
        (1.5, -1.0, -1.5, -1.5),
        (0.5, 1.0, 0.5, 0.5),
        (0.5, -1.0, -0.8, 0.0),
        (1.25, 2.0, 2.5, 2.5),
    ],
)
def test_the_clipped_surrogate(ratio, advantage, gain, gradient):
    tokens = make_tokens([-1.0], [-1.0 - math.log(ratio)], [advantage])

    total, metrics = loss("clip", tokens, clip_high=0.3)
    total.backward()

    assert total.item() == pytest.approx(-gain, abs=1e-6)
    assert tokens.logp.grad.item() == pytest.approx(-gradient, abs=1e-6)
    assert metrics["clipped"].item() == (gradient == 0)


@pytest.mark.parametrize(
    ("ratio", "advantage", "gain", "gradient"),
    [
        (2.0, -1.0, -2.0, -2.0),  # PPO's own value
        (4.0, -1.0, -3.0, 0.0),  # bounded by dual_clip
        (4.0, 1.0, 1.2, 0.0),  # bounded by clip_high, as without dual_clip
    ],
)
def test_dual_clip_bounds_the_loss_of_wrong_tokens(ratio, advantage, gain, gradient):
    tokens = make_tokens([-1.0], [-1.0 - math.log(ratio)], [advantage])

    total, metrics = loss("clip", tokens, dual_clip=3.0)
    total.backward()

    assert total.item() == pytest.approx(-gain, abs=1e-6)
    assert tokens.logp.grad.item() == pytest.approx(-gradient, abs=1e-6)
    assert metrics["dual_clipped"].item() == (gain == -3.0)


@pytest.mark.parametrize("behaviour", [-200.0, 0.0])
def test_ratios_beyond_all_floats_give_finite_losses_and_gradients(behaviour):
    tokens = make_tokens([-100.0, -1.0], [behaviour, -1.0], [-1.0, 1.0], reference=[0.0, -1.0])

    total, _ = loss("clip", tokens, kl=0.1)
    total.backward()

    assert torch.isfinite(total)
    assert torch.isfinite(tokens.logp.grad).all()
    assert tokens.logp.grad[1].item() == pytest.approx(-1.0)


def test_foreign_tokens_are_never_weighted_by_a_ratio():
    tokens = make_tokens([-1.0, -3.0], [-9.0, -0.1], [1.0, -1.0], foreign=True)

    total, _ = loss("clip", tokens)
    total.backward()

    assert tokens.logp.grad.tolist() == [-1.0, 1.0]


# ---------------------------------------------------------------- ips and topr


def test_ips_clips_the_ratio_above_and_averages_within_rows():
    behaviour = [-1.0 - math.log(1.1), -1.0 - math.log(3), -0.5]
    tokens = make_tokens([-1.0, -1.0, -1.0], behaviour, [2.0, 2.0, -1.0], row=[0, 0, 1])

    total, metrics = loss("ips", tokens)
    total.backward()

    assert tokens.logp.grad.tolist() == pytest.approx([-1.1, -1.2, math.exp(-0.5)], rel=1e-5)
    assert metrics["clipped"].item() == pytest.approx(0.5)


def test_the_likelihood_term_of_ips_is_a_tenth_on_wrong_answers():
    tokens = make_tokens([-1.0, -1.0], [-1.0, -1.0], [1.0, -1.0])

    plain, _ = loss("ips", tokens)
    held, _ = loss("ips", tokens, kl=0.5)
    (held - plain).backward()

    assert tokens.logp.grad.tolist() == pytest.approx([-0.5, -0.05])


def test_topr_weights_wrong_answers_by_their_sequence_and_right_ones_fully():
    logp, behaviour = [-2.0, -2.0, -2.0, -2.0], [-1.0, -1.5, -2.5, -1.0]
    tokens = make_tokens(logp, behaviour, [-1.0, -1.0, -1.0, 1.0], row=[0, 0, 1, 2])

    loss("topr", tokens)[0].backward()

    assert tokens.logp.grad.tolist() == pytest.approx([math.exp(-1.5), math.exp(-1.5), 1.0, -1.0])


# ---------------------------------------------------------------- gspo and cispo


def test_gspo_clips_the_geometric_mean_of_an_answers_ratios():
    logp = [-1.0, -2.0, -1.0, -1.5, -2.5]
    log_ratios = [0.3, -0.1, 0.5, 0.5, -0.2]  # means 0.1 and 0.4 of two right answers, and -0.2 of a wrong one
    behaviour = [value - ratio for value, ratio in zip(logp, log_ratios)]
    tokens = make_tokens(logp, behaviour, [2.0, 2.0, 1.0, 1.0, -1.0], row=[0, 0, 1, 1, 2])

    total, metrics = loss("gspo", tokens, clip_low=0.1, clip_high=0.2)
    total.backward()

    assert total.item() == pytest.approx(-(2 * math.exp(0.1) + 1.2 - 0.9), rel=1e-6)
    assert tokens.logp.grad.tolist() == pytest.approx([-math.exp(0.1)] * 2 + [0.0] * 3, rel=1e-6)
    assert metrics["clipped"].item() == pytest.approx(2)


def test_cispo_weighs_tokens_by_capped_ratios_and_keeps_their_gradients():
    log_ratios = [0.1, 2.0, -3.0]
    tokens = make_tokens([-1.0] * 3, [-1.0 - ratio for ratio in log_ratios], [2.0, -1.0, 1.0], row=[0, 0, 1])

    total, metrics = loss("cispo", tokens, ratio_cap=5.0)
    total.backward()

    assert tokens.logp.grad.tolist() == pytest.approx([-2 * math.exp(0.1), 5.0, -math.exp(-3.0)], rel=1e-5)
    assert total.item() == pytest.approx(2 * math.exp(0.1) - 5.0 + math.exp(-3.0), rel=1e-5)
    assert metrics["clipped"] == 1


# ---------------------------------------------------------------- dpo


def test_dpo_by_hand():
    tokens = make_tokens(
        [-1.0, -2.0, -3.0, -1.0],
        [0.0] * 4,
        [1.0, 1.0, -1.0, -1.0],
        row=[0, 0, 1, 1],
        pair=[0, 0, 0, 0],
        reference=[-1.5, -2.0, -2.0, -1.5],
    )

    total, metrics = loss("dpo", tokens, dpo_beta=0.5, nll_weight=0.3)
    total.backward()

    margin = 0.5 * (0.5 - (-1.0 + 0.5))
    assert total.item() == pytest.approx(math.log(1 + math.exp(-margin)) + 0.3 * 1.5)
    assert metrics["preferred"] == 1
    assert metrics["margin"].item() == pytest.approx(margin)

    pull = 0.5 / (1 + math.exp(margin))
    assert tokens.logp.grad.tolist() == pytest.approx([-pull - 0.15, -pull - 0.15, pull, pull])


# ---------------------------------------------------------------- KL terms


def expected_gradient(estimate, logits: torch.Tensor, behaviour: torch.Tensor) -> torch.Tensor:
    """Return Σ_y μ(y) ∇ estimate(log π(y)): the mean of a Monte Carlo gradient over samples of μ, without the noise."""
    logits = logits.clone().requires_grad_()
    (behaviour.exp() * estimate(logits.log_softmax(-1))).sum().backward()
    return logits.grad


def test_the_mean_gradients_of_the_kl_terms_are_those_of_the_exact_divergences():
    torch.manual_seed(0)
    logits, behaviour, reference = (torch.randn(7, dtype=torch.float64).log_softmax(-1) for _ in range(3))

    def by_token(name: str, **settings):
        """Return the function that gives the objective's loss of each token alone, with advantage 0."""

        def estimate(logp: torch.Tensor) -> torch.Tensor:
            one = torch.ones(1, dtype=torch.float64)
            index = torch.zeros(1, dtype=torch.int64)
            losses = []
            for value, mu, ref in zip(logp, behaviour, reference):
                tokens = Tokens(value[None], mu[None], ref[None], 0.0 * one, one < 0, one, index, index, one)
                losses.append(loss(name, tokens, **settings)[0])
            return torch.stack(losses)

        return estimate

    reverse, forward = (logits.clone().requires_grad_() for _ in range(2))
    (reverse.softmax(-1) * (reverse.log_softmax(-1) - reference)).sum().backward()  # KL(π || π_ref)
    (behaviour.exp() * (behaviour - forward.log_softmax(-1))).sum().backward()  # KL(μ || π)

    for name in ("clip", "gspo", "cispo"):
        for estimate in ("k1", "k2", "k3"):
            ours = expected_gradient(by_token(name, kl=1.0, kl_estimate=estimate), logits, behaviour)
            torch.testing.assert_close(ours, reverse.grad, atol=1e-12, rtol=0, msg=f"{name} {estimate}")
    ours = expected_gradient(by_token("ips", kl=10.0), logits, behaviour)  # 0.1 of it where A ≤ 0
    torch.testing.assert_close(ours, forward.grad, atol=1e-12, rtol=0)
