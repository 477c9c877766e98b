"""Families of models: each is certified and trained, or refused with its reason."""

import re
from pathlib import Path

import pytest
import torch

from tests.training.families import FAMILIES, LENGTH, make, verdict
from workflow_scripts.certify import BOUNDS, certify, make_rows, packed_logps
from workflow_scripts.training import attention, logps
from workflow_scripts.training.logps import load_policy

REFUSED = {"Qwen3-Next": "linear_attention", "Llama 4": "chunked_attention", "Bloom": "mixes rows", "OPT": "dropout"}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_certified_and_trained_or_refused(tmp_path, name):
    result = verdict(name, tmp_path)
    if name in REFUSED:
        assert result.startswith("refused: ") and REFUSED[name] in result
        return

    assert result == "certified"
    policy = load_policy(str(tmp_path), "float32").train()
    rows = make_rows(64, LENGTH)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-3)
    losses = []
    for _ in range(4):
        loss = -packed_logps(policy, rows).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)


def test_the_table_in_the_docs_is_that_of_the_families():
    text = Path("docs/guides/models.md").read_text()
    results = dict(re.findall(r"^\| (.+?) \| `\w+` \| (certified|refused).*\|$", text, re.MULTILINE))
    assert results == {name: "refused" if name in REFUSED else "certified" for name in FAMILIES}


# ---------------------------------------------------------------- planted faults


def failed(folder: Path) -> set[str]:
    """Return the checks that a model fails."""
    measured = certify(str(folder), LENGTH, "float32")
    return {check for check, bound in BOUNDS.items() if not measured[check] <= bound}


def test_a_window_that_is_not_applied_is_noticed(tmp_path, monkeypatch):
    make("Mistral, with window", tmp_path)
    assert failed(tmp_path) == set()

    visible = attention.visible
    monkeypatch.setattr(attention, "visible", lambda length, window, device: visible(length, None, device))
    assert failed(tmp_path) == {"log-probs", "gradients"}


def test_a_wrong_gradient_is_noticed(tmp_path, monkeypatch):
    make("Gemma 2", tmp_path)
    pull = logps.TokenLogps.pull
    monkeypatch.setattr(logps.TokenLogps, "pull", staticmethod(lambda *values: pull(*values) * 1.01))
    assert failed(tmp_path) == {"gradients"}


def test_rows_that_see_each_other_are_noticed(tmp_path, monkeypatch):
    by_segment = attention._by_segment

    def leaking(query, key, value, scaling, lengths, window):
        return by_segment(query, key, value, scaling, [sum(lengths)], window)

    monkeypatch.setattr(attention, "_by_segment", leaking)
    assert "mixes rows" in verdict("Llama", tmp_path)
