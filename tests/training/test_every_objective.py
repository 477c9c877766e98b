"""Properties that every objective has, and the means that objectives on tokens can be averaged by."""

import dataclasses

import numpy as np
import pytest
import torch

from tests.workshop import make_rows
from workflow_scripts.config.sections import Train
from workflow_scripts.core.running import plugins
from workflow_scripts.training import bins, objectives
from workflow_scripts.training.objectives import Tokens
from workflow_scripts.training.trainer import OF_TOKENS

NAMES = plugins.names("training/objectives")
MEANS = {name: plugins.constants("training/objectives", name).get("MEANS", ()) for name in NAMES}
AVERAGED = [(name, mean) for name in NAMES for mean in (None, *MEANS[name])]
ROWS = 12


def settings_for(name: str, mean: str | None = None, **settings) -> Train:
    """Return settings of an objective, with a KL term if it can have one."""
    if plugins.constants("training/objectives", name).get("KL"):
        settings["kl"] = 0.3
    if mean == "constant":
        settings["mean_constant"] = 7.0
    return Train(objective=name, mean_over=mean, **settings)


def scored_rows() -> list[dict]:
    """Return rows with log-probs near those of the policy in training; neighbours are preference pairs."""
    rng = np.random.default_rng(0)
    rows = []

    for number, row in enumerate(make_rows(ROWS)):
        logps = -rng.exponential(1.0, sum(row["mask"]))
        rows.append(
            row
            | {
                "pair": number // 2,
                "advantage": (1.0 - 2 * (number % 2)) * (1 + number % 3),
                "foreign": number == 4,
                "logps": logps,
                "behaviour_logps": logps + rng.normal(0, 0.3, len(logps)),
                "reference_logps": logps + rng.normal(0, 0.3, len(logps)),
                "start_kl": 0.4,
            }
        )

    return rows


def tokens_of(rows: list[dict]) -> Tokens:
    """Return a bin of rows in double precision, whose log-probs take a gradient."""
    bin_ = bins.collate(rows, 0)
    logp = torch.from_numpy(np.concatenate([row["logps"] for row in rows] or [np.zeros(0)])).requires_grad_()
    tokens = Tokens(logp, *(bin_[name] for name in OF_TOKENS))
    as_double = {
        field.name: value.double()
        for field in dataclasses.fields(tokens)
        if torch.is_tensor(value := getattr(tokens, field.name)) and value.dtype == torch.float32
    }
    return dataclasses.replace(tokens, **as_double)


def gradient(name: str, rows: list[dict], settings: Train) -> tuple[float, torch.Tensor, dict[str, float]]:
    """Return the sum of an objective's loss over a bin, its gradient by each log-prob, and the metrics."""
    tokens = tokens_of(rows)
    total, metrics = objectives.load(name).loss(tokens, settings)
    total.backward()
    return total.item(), tokens.logp.grad, {key: value.item() for key, value in metrics.items()}


# ---------------------------------------------------------------- all of them


@pytest.mark.parametrize(("name", "mean"), AVERAGED)
def test_an_empty_bin_adds_nothing(name, mean):
    total, metrics = objectives.load(name).loss(tokens_of([]), settings_for(name, mean))

    assert total.item() == 0
    assert all(value.item() == 0 for value in metrics.values())


@pytest.mark.parametrize("name", NAMES)
def test_objectives_show_their_formula(name):
    assert "Σ" in objectives.load(name).__doc__


@pytest.mark.parametrize("name", NAMES)
def test_objectives_state_their_facts_as_literals(name):
    """The config is checked where torch may be missing, so the facts are read from the source."""
    constants = plugins.constants("training/objectives", name)

    assert constants["UNIT"] in ("tokens", "rows", "pairs")
    assert set(constants["NEEDS"]) <= {"behaviour", "reference"}
    assert constants.get("KL") in (None, "reference", "likelihood")
    assert set(constants.get("MEANS", ())) <= {"tokens", "rows", "constant"}


@pytest.mark.parametrize(("name", "mean"), AVERAGED)
def test_losses_and_gradients_do_not_depend_on_the_bins(name, mean):
    """Sums over any bins of whole pairs are those of all rows at once, so packing and ranks change nothing."""
    rows = scored_rows()
    settings = settings_for(name, mean)
    total, whole, metrics = gradient(name, rows, settings)

    parts = [gradient(name, part, settings) for part in (rows[:2], rows[2:8], [], rows[8:])]

    assert sum(part[0] for part in parts) == pytest.approx(total, rel=1e-12)
    torch.testing.assert_close(torch.cat([part[1] for part in parts]), whole, rtol=1e-12, atol=1e-15)
    for key, value in metrics.items():
        assert sum(part[2].get(key, 0) for part in parts) == pytest.approx(value, rel=1e-12), key


# ---------------------------------------------------------------- means


@pytest.mark.parametrize("name", [name for name in NAMES if MEANS[name]])
def test_means_weigh_the_gradients_of_tokens(name):
    """Each mean multiplies a token's gradient by its own weight, for answers that share their advantage and ratio."""
    rows = [row | {"behaviour_logps": row["logps"], "reference_logps": row["logps"]} for row in scored_rows()]
    length = tokens_of(rows).length
    by = {mean: gradient(name, rows, settings_for(name, mean))[1] for mean in MEANS[name]}

    torch.testing.assert_close(by["rows"], by["tokens"] / length)
    torch.testing.assert_close(by["constant"], by["tokens"] / 7.0)
    default = gradient(name, rows, settings_for(name))[1]
    torch.testing.assert_close(default, by[plugins.constants("training/objectives", name)["UNIT"]])


def test_the_number_that_a_sum_is_divided_by_follows_from_the_mean():
    assert Train(objective="clip").unit == "tokens"
    assert Train(objective="clip", mean_over="rows").unit == "rows"
    assert Train(objective="clip", mean_over="constant", mean_constant=64).unit == "rows"
    assert Train(objective="ips", mean_over="tokens").unit == "tokens"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "dpo", "mean_over": "rows"}, "the loss of objective dpo is always a mean over pairs; use null"),
        ({"objective": "clip", "mean_over": "constant"}, "mean_over constant needs it"),
        ({"objective": "clip", "mean_constant": 3}, "nothing else uses it"),
        ({"objective": "clip", "kl_estimate": "k1"}, "there is no KL term to the reference"),
        ({"objective": "ips", "kl": 0.1, "kl_estimate": "k1"}, "there is no KL term to the reference"),
        ({"objective": "dpo", "entropy": 0.1}, "objective dpo compares answers, not tokens"),
    ],
)
def test_terms_that_an_objective_cannot_have_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Train(**settings)
