"""The auxiliary loss of mixtures of experts: that of transformers, also on packed rows."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.training.families import make
from tests.workshop import make_rows
from workflow_scripts.config.sections import Train
from workflow_scripts.core.errors import BadInput
from workflow_scripts.training.bins import collate
from workflow_scripts.training.logps import load_policy, logps_and_balance, sampled_logps
from workflow_scripts.training.trainer import fit, history

FAMILIES = ("Qwen3-MoE", "Mixtral")
SETTINGS: dict[str, Any] = {"objective": "sft", "batch_size": 12, "tokens_per_bin": 96, "threads": 1, "warmup": 0}


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory) -> str:
    """Return the folder of a tiny mixture of experts."""
    path = tmp_path_factory.mktemp("experts")
    make(request.param, path)
    return str(path)


def stock_loss(model: Any, rows: list[dict]) -> torch.Tensor:
    """Return transformers' own loss of the same rows as a padded batch, by its own attention."""
    ids = [torch.tensor(row["prompt_tokens"] + row["tokens"]) for row in rows]
    padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=1)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
    return model(input_ids=padded, attention_mask=mask, output_router_logits=True).aux_loss


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}


@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_packed_rows_have_the_loss_and_gradients_of_transformers(folder, is_checkpointed):
    rows = make_rows(6)
    stock: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").train()
    expected = stock_loss(stock, rows)
    right = gradients(stock, expected)

    policy = load_policy(folder, "float32").train()
    if is_checkpointed:
        policy.gradient_checkpointing_enable({"use_reentrant": False})
    logps, balance = logps_and_balance(policy, collate(rows, 0))
    assert torch.equal(logps, sampled_logps(policy, collate(rows, 0)))
    torch.testing.assert_close(balance, expected, rtol=1e-5, atol=0)

    ours = gradients(policy, balance)
    assert ours.keys() == right.keys() and any("gate" in name for name in ours)
    for name, value in right.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-6, msg=name)


def trained(folder: str, tmp_path: Path, **settings: Any) -> list[dict[str, Any]]:
    """Return the history of a training."""
    chosen = Train(**(SETTINGS | settings))
    trainer = fit(folder, make_rows(12), chosen, temperature=1.0, seed=0, state=str(tmp_path / "state"), pad=0)
    return history(trainer)


def test_training_brings_the_experts_into_balance(folder, tmp_path):
    settings = {"lr": 3e-3, "epochs": 12}
    with_loss = trained(folder, tmp_path / "with", router_loss=1.0, **settings)
    without = trained(folder, tmp_path / "without", **settings)

    assert "router_loss" not in without[0]
    assert with_loss[-1]["router_loss"] < with_loss[0]["router_loss"]
    assert with_loss[0]["loss"] == pytest.approx(without[0]["loss"] + with_loss[0]["router_loss"], rel=0.01)


def test_an_update_of_several_bins_takes_their_mean_by_tokens(folder, tmp_path):
    rows = make_rows(12)
    logged = trained(folder, tmp_path, router_loss=1.0, lr=1e-9)[0]
    without = trained(folder, tmp_path / "without", lr=1e-9)[0]

    from workflow_scripts.training.bins import plan_rows

    plan = plan_rows(rows, Train(**SETTINGS), 0)
    policy = load_policy(folder, "float32")
    total = 0.0
    for bin_ in plan.bins:
        inputs = collate([rows[i] for unit in bin_.units for i in plan.units[unit]], 0)
        total += logps_and_balance(policy, inputs)[1].item() * sum(inputs["lengths"])
    expected = total / sum(len(row["prompt_tokens"]) + len(row["tokens"]) for row in rows)

    assert len(plan.bins) > 1
    assert logged["loss"] - without["loss"] == pytest.approx(expected, rel=1e-3)


def test_a_model_without_experts_is_refused(tmp_path):
    make("Llama", tmp_path / "model")
    with pytest.raises(BadInput, match=r"train.router_loss: .*LlamaForCausalLM\) is no mixture of experts"):
        trained(str(tmp_path / "model"), tmp_path, router_loss=0.001)
