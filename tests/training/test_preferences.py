"""Preference objectives: values by their formulas in plain Python, gradients by finite differences."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from tests.training.test_every_objective import scored_rows, tokens_of
from tests.workshop import Workshop, make_pairs
from workflow_scripts.config.sections import Train
from workflow_scripts.training import objectives
from workflow_scripts.training.rows import kl_at_start

NAMES = ("dpo", "robust_dpo", "ipo", "simpo", "orpo", "kto")
STEP = 1e-5


def log_sigmoid(value: float) -> float:
    return -math.log1p(math.exp(-value))


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def log_odds(mean: float) -> float:
    return mean - math.log(1 - math.exp(mean))


class Answer:
    """The sums and means that formulas are written in."""

    def __init__(self, row):
        self.ratio = float(np.sum(row["logps"] - row["reference_logps"].astype(np.float32)))
        self.mean_ratio = self.ratio / len(row["logps"])
        self.mean = float(np.mean(row["logps"]))
        self.is_good = row["advantage"] > 0


def by_formula(name: str, rows: list[dict], s: Train) -> float:
    """Return the sum of an objective over pairs, or over rows for kto, answer by answer."""
    answers = [Answer(row) for row in rows]
    total = 0.0

    for chosen, rejected in zip(answers[::2], answers[1::2]):
        margin = s.dpo_beta * (chosen.ratio - rejected.ratio)
        smooth = s.label_smoothing
        right, flipped = -log_sigmoid(margin), -log_sigmoid(-margin)
        if name == "dpo":
            total += (1 - smooth) * right + smooth * flipped - s.nll_weight * chosen.mean
        if name == "robust_dpo":
            total += ((1 - smooth) * right - smooth * flipped) / (1 - 2 * smooth) - s.nll_weight * chosen.mean
        if name == "ipo":
            total += (chosen.mean_ratio - rejected.mean_ratio - 1 / (2 * s.dpo_beta)) ** 2
        if name == "simpo":
            total -= log_sigmoid(s.dpo_beta * (chosen.mean - rejected.mean) - s.simpo_margin)
        if name == "orpo":
            total -= chosen.mean + s.dpo_beta * log_sigmoid(log_odds(chosen.mean) - log_odds(rejected.mean))

    if name == "kto":
        for answer in answers:
            sign, weight = (1, s.desirable_weight) if answer.is_good else (-1, s.undesirable_weight)
            total += weight * (1 - sigmoid(s.dpo_beta * sign * (answer.ratio - float(np.float32(0.4)))))

    return total


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("name", NAMES)
def test_values_are_those_of_the_formulas_and_gradients_those_of_finite_differences(name, smoothing):
    settings = {"dpo_beta": 0.5, "desirable_weight": 1.5, "undesirable_weight": 0.5, "nll_weight": 0.3}
    if name in ("dpo", "robust_dpo"):
        settings["label_smoothing"] = smoothing
    settings = Train(objective=name, **settings)
    rows = scored_rows()
    tokens = tokens_of(rows)

    def value(logp) -> float:
        return objectives.load(name).loss(dataclasses.replace(tokens, logp=logp), settings)[0].item()

    total, _ = objectives.load(name).loss(tokens, settings)
    total.backward()
    assert total.item() == pytest.approx(by_formula(name, rows, settings), rel=1e-9)

    logp = tokens.logp.detach()
    for index in range(len(logp)):
        step = torch.zeros_like(logp)
        step[index] = STEP
        slope = (value(logp + step) - value(logp - step)) / (2 * STEP)
        assert tokens.logp.grad[index].item() == pytest.approx(slope, abs=1e-6)


def test_without_smoothing_robust_dpo_is_dpo():
    rows = scored_rows()
    values = [objectives.load(name).loss(tokens_of(rows), Train(objective=name))[0] for name in ("dpo", "robust_dpo")]

    assert values[0].item() == pytest.approx(values[1].item(), rel=1e-12)


def test_the_mean_loss_of_robust_dpo_over_flips_is_that_of_dpo_on_true_preferences():
    rows = scored_rows()
    flipped = [row | {"advantage": -row["advantage"]} for row in rows]
    settings = {"label_smoothing": 0.2, "nll_weight": 0.0}

    robust = Train(objective="robust_dpo", **settings)
    kept, turned = (objectives.load("robust_dpo").loss(tokens_of(part), robust)[0] for part in (rows, flipped))
    true, _ = objectives.load("dpo").loss(tokens_of(rows), Train(objective="dpo", nll_weight=0.0))

    assert (0.8 * kept + 0.2 * turned).item() == pytest.approx(true.item(), rel=1e-12)


def test_an_answer_that_is_certain_gives_orpo_a_finite_gradient():
    rows = [row | {"logps": np.zeros_like(row["logps"])} for row in scored_rows()[:2]]
    tokens = tokens_of(rows)

    total, _ = objectives.load("orpo").loss(tokens, Train(objective="orpo"))
    total.backward()

    assert torch.isfinite(total) and torch.isfinite(tokens.logp.grad).all()


@pytest.mark.parametrize("name", ["clip", "ipo"])
def test_smoothing_is_refused_where_nothing_uses_it(name):
    with pytest.raises(ValueError, match=f"label_smoothing: only dpo and robust_dpo use it, not {name}"):
        Train(objective=name, label_smoothing=0.1)


# ---------------------------------------------------------------- training


def test_the_reference_point_of_kto_is_the_mean_kl_of_own_answers():
    rows = [
        {"behaviour_logps": np.array([-1.0, -1.0]), "reference_logps": np.array([-1.5, -1.25])},
        {"behaviour_logps": np.array([-2.0]), "reference_logps": np.array([-1.5])},
    ]

    assert kl_at_start(rows) == pytest.approx((0.75 - 0.5) / 2)
    assert kl_at_start(rows[1:]) == 0
    assert kl_at_start([]) == 0


def test_kto_learns_good_answers_from_bad_ones(tmp_path):
    workshop = Workshop(tmp_path)
    reference = ("--ref-logp", workshop.logp(), "--reference", workshop.checkpoint)
    settings = {"objective": "kto", "batch_size": 16, "epochs": 10, "dpo_beta": 0.5}
    history = workshop.train("kto", "--logp", workshop.logp(name="own"), *reference, **settings)["history"]

    assert history[0]["loss"] == pytest.approx(0.5, abs=1e-6)
    assert history[0]["start_kl"] == 0
    assert history[-1]["value"] > 0.6


@pytest.mark.parametrize("objective", ["simpo", "orpo"])
def test_objectives_without_a_reference_need_no_stored_log_probs(tmp_path, objective):
    workshop = Workshop(tmp_path)
    workshop.write(make_pairs())
    settings = {"objective": objective, "batch_size": 8, "epochs": 10, "dpo_beta": 2.0}
    history = workshop.train("trained", **settings)["history"]

    assert history[-1]["preferred"] > history[0]["preferred"]
    assert history[-1]["margin"] > history[0]["margin"] + 0.1
