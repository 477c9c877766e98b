"""Log-probs of packed rows are those of the rows alone, for every model that is not refused."""

import math

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
)

from tests.workshop import logps_one_by_one, logps_packed, make_rows
from workflow_scripts.core.errors import BadInput
from workflow_scripts.training import bins, logps
from workflow_scripts.training.flops import forward_flops
from workflow_scripts.training.logps import load_policy, sampled_logps

# ---------------------------------------------------------------- packing


@torch.no_grad()
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_packed_equals_one_at_a_time(model, stock, temperature):
    rows = make_rows()

    for ours, row in zip(logps_packed(model, rows, temperature), rows):
        torch.testing.assert_close(ours, logps_one_by_one(stock, row, temperature), atol=2e-6, rtol=0)


@torch.no_grad()
def test_changing_one_row_leaves_the_others_bit_equal(model):
    rows = make_rows()
    before = logps_packed(model, rows)
    rows[3] = rows[3] | {"tokens": [(token + 1) % 50 for token in rows[3]["tokens"]]}
    after = logps_packed(model, rows)

    for number, (old, new) in enumerate(zip(before, after)):
        assert torch.equal(old, new) == (number != 3)


# ---------------------------------------------------------------- the head


@pytest.mark.parametrize("kept", [0, 2**28], ids=["computed_again", "kept"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("cap", [None, 5.0], ids=["plain", "soft_cap"])
def test_the_chunked_head_equals_log_softmax_and_its_gradients(monkeypatch, kept, bias, cap):
    monkeypatch.setattr(logps, "CHUNK", {"cpu": 4 * 30 * 5})  # five rows at a time
    monkeypatch.setattr(logps, "KEPT", {"cpu": kept})
    torch.manual_seed(0)
    leaves = [torch.randn(23, 8), torch.randn(30, 8), *([torch.randn(30)] if bias else [])]
    ours, theirs = ([leaf.clone().requires_grad_() for leaf in leaves] for _ in range(2))
    targets, weights = torch.randint(30, (23,)), torch.randn(23)

    values = logps.TokenLogps.apply(*ours[:2], ours[2] if bias else None, targets, logps.Logits(2.0, cap, 0.7))
    logits = torch.nn.functional.linear(*theirs) / 2
    logits = (logits if cap is None else cap * torch.tanh(logits / cap)) / 0.7
    expected = logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    (values * weights).sum().backward()
    (expected * weights).sum().backward()

    torch.testing.assert_close(values, expected, atol=2e-6, rtol=0)
    for mine, right in zip(ours, theirs):
        torch.testing.assert_close(mine.grad, right.grad, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kept", [0, 2**28], ids=["computed_again", "kept"])
@pytest.mark.parametrize("cap", [None, 5.0], ids=["plain", "soft_cap"])
def test_entropies_of_the_chunked_head_are_exact_and_so_are_their_gradients(monkeypatch, kept, cap):
    monkeypatch.setattr(logps, "CHUNK", {"cpu": 4 * 30 * 5})  # two rows at a time: half of five
    monkeypatch.setattr(logps, "KEPT", {"cpu": kept})
    torch.manual_seed(0)
    leaves = [torch.randn(23, 8), torch.randn(30, 8), torch.randn(30)]
    ours, theirs = ([leaf.clone().requires_grad_() for leaf in leaves] for _ in range(2))
    targets, weights, of_entropies = torch.randint(30, (23,)), torch.randn(23), torch.randn(23)

    values, entropies = logps.TokenLogps.apply(*ours, targets, logps.Logits(2.0, cap, 0.7), True)
    logits = torch.nn.functional.linear(*theirs) / 2
    logits = (logits if cap is None else cap * torch.tanh(logits / cap)) / 0.7
    every = logits.log_softmax(-1)
    expected = -(every.exp() * every).sum(-1)
    (values * weights + entropies * of_entropies).sum().backward()
    (every.gather(-1, targets[:, None])[:, 0] * weights + expected * of_entropies).sum().backward()

    torch.testing.assert_close(entropies, expected, atol=5e-6, rtol=0)
    for mine, right in zip(ours, theirs):
        torch.testing.assert_close(mine.grad, right.grad, atol=1e-5, rtol=1e-5)


def test_the_gradient_of_log_probs_and_entropies_in_double_precision():
    torch.manual_seed(0)
    logits = torch.randn(5, 9, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(9, (5, 1))
    grad, grad_entropy = torch.randn(2, 5, 1, dtype=torch.float64)

    every = logits.log_softmax(-1)
    entropy = -(every.exp() * every).sum(-1, keepdim=True)
    (every.gather(-1, targets) * grad + entropy * grad_entropy).sum().backward()

    norms = logits.detach().logsumexp(-1, keepdim=True)
    scaling = logps.Logits()
    pull = logps.TokenLogps.pull(logits.detach().clone(), norms, targets, grad, scaling, entropy.detach(), grad_entropy)
    torch.testing.assert_close(pull, logits.grad, atol=1e-12, rtol=0)


# ---------------------------------------------------------------- models that are refused


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (OPTConfig(hidden_size=32, ffn_dim=64, word_embed_proj_dim=32), "dropout that stays on"),
        (BloomConfig(hidden_size=32, n_layer=2, n_head=4, initializer_range=0.2), "mixes rows"),
    ],
    ids=["dropout", "own_attention"],
)
def test_models_whose_rows_cannot_be_packed_are_refused(tmp_path, config, reason):
    small = {"vocab_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config.update(small)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)

    with pytest.raises(BadInput, match=reason):
        load_policy(str(tmp_path), "float32")


# ---------------------------------------------------------------- operations


def causal_flops(query) -> int:
    """Return the operations of causal attention.

    torch's counter takes attention for square, but the kernel skips what lies above the diagonal.
    """
    batch, heads, length, width = query
    return 2 * batch * heads * length * (length + 1) * width


def test_no_more_operations_than_needed(tmp_path):
    config = LlamaConfig(
        vocab_size=8_000, hidden_size=256, intermediate_size=704, num_hidden_layers=2, num_attention_heads=4
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    policy = load_policy(str(tmp_path), "float32").train()
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(math.log(150), 0.8, 12), 4, 700).astype(int)
    rows = [
        {"prompt_tokens": [5] * (n // 2), "tokens": [7] * (n - n // 2), "mask": [1] * (n - n // 2)}
        for n in sorted(lengths)
    ]

    aten = torch.ops.aten
    counted = {
        aten.addmm_: lambda out, left, right, **_: 2 * left[0] * left[1] * right[1],  # not in torch's table
        aten._scaled_dot_product_flash_attention_for_cpu: lambda q, *_, **__: causal_flops(q),
        aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda grad, q, *_, **__: 2 * causal_flops(q),
    }
    with FlopCounterMode(display=False, custom_mapping=counted) as counter:
        sampled_logps(policy, bins.collate(rows, 0)).sum().backward()

    needed = 3 * forward_flops(policy, lengths.tolist(), sum(sum(row["mask"]) for row in rows))
    assert 0.97 < counter.get_total_flops() / needed < 1.03
