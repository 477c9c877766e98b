"""Scores of rows: log-probs with shared prefixes, gains and likelihoods, and merged task models."""

import random

import numpy as np
import pytest
import torch

from workflow_scripts.core.errors import BadInput
from workflow_scripts.tasks.tabular.addscore import chosen_answer, likelihood, measured
from workflow_scripts.tasks.tabular.evaluate_task import interval_of, measures_of, signal_of
from workflow_scripts.tasks.tabular.merge_models import merged
from workflow_scripts.tasks.tabular.prefixes import answer_logps, read_beginning
from workflow_scripts.tasks.tabular.settings import Merge

LABELS = {
    "task": "classification",
    "candidates": ["a", "b"],
    "scale": 1.0,
    "shares": {"a": 0.5, "b": 0.5},
    "ds0": [{"reference": label} for label in "aabb"],
}
QUANTITIES = {
    "task": "regression",
    "candidates": ["10", "20"],
    "scale": 5.0,
    "ds0": [{"reference": "10"}, {"reference": "20"}],
}


@pytest.fixture(scope="module")
def model():
    from transformers import LlamaConfig, LlamaForCausalLM, set_seed

    set_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=50, **shape)).eval()


def test_shared_prefixes_change_nothing_but_the_cost(model):
    rng = random.Random(0)

    def draw(count):
        return [rng.randrange(50) for _ in range(count)]

    head = draw(20)
    answers = [[3], [4, 5], [4, 6, 7]]
    groups = [[head + line + draw(rng.randint(3, 9)) for _ in range(3)] for line in (draw(4), draw(9), [])]
    other = [draw(5), draw(7)]  # a group that begins otherwise

    beginning = read_beginning(model, groups)
    assert beginning is not None
    assert beginning.tokens == head[: len(beginning.tokens)]
    assert len(beginning.tokens) >= 20

    logps, cost = answer_logps(model, groups, answers, beginning)
    of_other, _ = answer_logps(model, [other], answers, beginning)
    whole = 0
    for group, of_group in zip([*groups, other], logps + of_other):
        for prompt, values in zip(group, of_group):
            for answer, value in zip(answers, values):
                with torch.no_grad():
                    expected = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
                total = sum(expected[len(prompt) - 1 + i, token].item() for i, token in enumerate(answer))
                assert value == pytest.approx(total, abs=1e-4)
                if group is not other:
                    whole += len(prompt + answer)
    assert cost < whole / 3


def test_gains_of_labels_have_the_right_sign():
    sure = {"a": [-0.1, -2.0], "b": [-2.0, -0.1]}
    right = measured([sure[label] for label in "aabb"], LABELS)
    wrong = measured([sure[label] for label in "bbaa"], LABELS)
    assert right == {"answers": list("aabb"), "score": 1}
    assert wrong["score"] == -1

    a = {"reference": "a", "target": "a"}
    assert likelihood(sure["b"], a, LABELS) == pytest.approx(-2.0 - np.log(np.exp(-0.1) + np.exp(-2.0)))
    assert likelihood(sure["a"], a, LABELS) == likelihood([0.0, -0.1], a, LABELS) == np.log(0.5)

    # A label counts as likely enough once it is likelier than its share among real rows.
    often = LABELS | {"shares": {"a": 0.8, "b": 0.2}}
    b = {"reference": "b", "target": "b"}
    assert likelihood([0.0, 0.0], a, often) == pytest.approx(np.log(0.5))
    assert likelihood(sure["a"], a, often) == np.log(0.8)
    assert likelihood([0.0, 0.0], b, often) == np.log(0.2)


def test_gains_of_quantities_have_the_right_sign():
    undecided = [-3.0, -3.0]
    assert chosen_answer(undecided, QUANTITIES) == pytest.approx(15)
    assert measured([[0.0, -50.0], [-50.0, 0.0]], QUANTITIES)["score"] == pytest.approx(0)
    assert measured([undecided, undecided], QUANTITIES)["score"] == pytest.approx(-1)

    # A target beyond all candidates is as far as it was written, not as far as its nearest candidate.
    assert likelihood(undecided, {"reference": "20", "target": 1000}, QUANTITIES) == pytest.approx(-985 / 5)
    assert likelihood(undecided, {"reference": "20", "target": 17}, QUANTITIES) == -0.5


def test_merges_with_the_model_before():
    before = {"w": torch.zeros(1000)}
    trained = {"w": torch.ones(1000)}
    linear = merged(before, [trained], Merge(weight=0.25), 0)["w"]
    assert torch.equal(linear, torch.full((1000,), 0.25))

    dare = merged(before, [trained], Merge(method="dare_linear", weight=1.0, density=0.25), 0)["w"]
    assert set(dare.tolist()) == {0.0, 4.0}
    assert 0.8 < dare.mean() < 1.2

    with pytest.raises(BadInput, match="cannot be merged"):
        merged({"w": torch.zeros(2)}, [{"w": torch.zeros(3)}], Merge(), 0)


@pytest.mark.parametrize(
    ("method", "density", "expected"),
    [
        ("linear", 1.0, [2.5, 0.5, -1.0, 3.25]),  # FedAvg: weighted by the clients' rows
        ("magnitude_prune", 0.5, [2.5, 0.0, -1.0, 3.0]),
        ("ties", 0.5, [4.0, 0.0, -4.0, 4.0]),
        ("ties", 1.0, [4.0, 1.0, -4.0, 3.25]),
    ],
)
def test_merges_of_clients(method, density, expected):
    before = {"w": torch.tensor([10.0, 10.0, 10.0, 10.0])}
    one = {"w": before["w"] + torch.tensor([4.0, 1.0, 0.0, 4.0])}
    other = {"w": before["w"] + torch.tensor([-2.0, -1.0, -4.0, 1.0])}
    merge = Merge(method=method, weight=1.0, density=density)
    result = merged(before, [one, other], merge, 0, counts=[30, 10])["w"] - before["w"]
    assert result.tolist() == pytest.approx(expected)


def test_dare_ties_keeps_a_random_part_of_each_client():
    before = {"w": torch.zeros(4000)}
    clients = [{"w": torch.ones(4000)}, {"w": torch.ones(4000)}]
    result = merged(before, clients, Merge(method="dare_ties", weight=1.0, density=0.5), 0)["w"]
    assert set(result.tolist()) == {0.0, 2.0}
    assert (result > 0).float().mean() == pytest.approx(0.75, abs=0.03)


# ---------------------------------------------------------------- how good a task model is


def test_the_signal_is_1_of_perfect_ranks_and_0_of_chance():
    references = list("aabb" * 25)
    right = np.array([[-0.6, -0.7] if label == "a" else [-0.8, -0.7] for label in references])
    assert signal_of(right, references, LABELS) == 1
    assert signal_of(right[:, ::-1], references, LABELS) == -1
    assert signal_of(np.full((100, 2), -1.0), references, LABELS) == 0
    assert signal_of(right[:2], ["a", "a"], LABELS) == 0  # a single label cannot be ranked

    noise = np.random.default_rng(0).normal(size=(100, 2))
    low, high = interval_of(noise, references, LABELS)
    assert low < 0 < high
    assert measures_of(right, references, LABELS)["n"] == 100


def test_the_signal_of_a_quantity_is_a_rank_correlation():
    logps = np.array([[0.0, -9.0], [-1.0, -1.0], [-9.0, 0.0]])
    assert signal_of(logps, ["10", "14", "20"], QUANTITIES) == pytest.approx(1)
    measures = measures_of(logps, ["10", "15", "20"], QUANTITIES)
    assert measures["r2"] == pytest.approx(1, abs=0.01)
