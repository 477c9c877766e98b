"""Stored log-probs: what the stage logp writes, and which files training refuses."""

import shutil

import pytest
import torch

from tests.workshop import Workshop, logps_one_by_one
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json, write_json
from workflow_scripts.core.pickles import read_pickle


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="module")
def stored(workshop):
    """Return the log-prob file of the data under the checkpoint that training starts from."""
    return workshop.logp()


@torch.no_grad()
def test_stored_log_probs_are_those_of_the_stock_model(workshop, stored):
    values = read_pickle(stored)
    stock = workshop.model()

    for row in read_pickle(workshop.data):
        ours = torch.from_numpy(values[row["uid"]])
        torch.testing.assert_close(ours, logps_one_by_one(stock, row), atol=2e-6, rtol=0)


@pytest.mark.parametrize("field", ["model", "data", "tokenizer"])
def test_a_stale_passport_is_refused(workshop, stored, tmp_path, field):
    for name in ("1_0.pkl", "1_0.json"):
        shutil.copy(stored.with_name(name), tmp_path)
    manifest = read_json(tmp_path / "1_0.json")
    manifest["passport"][field] = "another"
    write_json(tmp_path / "1_0.json", manifest)

    with pytest.raises(BadInput, match=f"computed for another {field}"):
        workshop.train("refused", "--logp", tmp_path / "1_0.pkl")


def test_a_file_without_a_passport_is_refused(workshop, stored, tmp_path):
    shutil.copy(stored, tmp_path / "1_0.pkl")
    write_json(tmp_path / "1_0.json", {"rows": 16})

    with pytest.raises(BadInput, match=r"1_0\.pkl: not a file of log-probs"):
        workshop.train("refused", "--logp", tmp_path / "1_0.pkl")


def test_log_probs_of_another_arithmetic_or_sampling_are_refused(workshop, stored):
    with pytest.raises(BadInput, match=r"computed for another dtype .*the same dtype"):
        workshop.train("refused", "--logp", stored, dtype="bfloat16")

    nucleus = workshop.logp(name="nucleus", options=("--top-p", 0.9))
    for objective in ("clip", "ips", "topr", "gspo", "cispo"):
        with pytest.raises(BadInput, match=f"ratios of `{objective}` would be biased"):
            workshop.train("refused", "--logp", nucleus, objective=objective)


def test_log_probs_at_two_temperatures_are_refused(workshop, stored):
    warm = workshop.logp(name="warm", options=("--temperature", 0.7))
    reference = ("--ref-logp", warm, "--reference", workshop.checkpoint)

    with pytest.raises(BadInput, match=r"--ref-logp: of logits / 0\.7, but --logp of logits / 1\.0"):
        workshop.train("refused", "--logp", stored, *reference, kl=0.1)


def test_objectives_that_need_stored_log_probs_say_so(workshop, stored):
    for objective in ("clip", "ips", "topr", "gspo", "cispo", "kto"):
        with pytest.raises(BadInput, match=f"--logp: the objective {objective} needs"):
            workshop.train("refused", objective=objective)

    with pytest.raises(BadInput, match="--ref-logp: the objective clip needs"):
        workshop.train("refused", "--logp", stored, kl=0.1)
    for objective in ("dpo", "robust_dpo", "ipo"):
        with pytest.raises(BadInput, match=f"--ref-logp: the objective {objective} needs"):
            workshop.train("refused", objective=objective)


def test_bf16_scores_as_it_trains(workshop):
    path = workshop.logp(name="bf16", dtype="bfloat16")
    first = workshop.train("bf16", "--logp", path, dtype="bfloat16")["history"][0]

    assert first["ratio"] == pytest.approx(1, abs=1e-6)
    assert first["ess"] == pytest.approx(1, abs=1e-6)
