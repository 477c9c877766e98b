"""Invariants of bins, attention, log-probs, objectives and the trainer, on a small Llama."""

import hashlib
import math

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    Gemma2ForCausalLM,
    GptOssConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    set_seed,
)

from workflow_scripts.core.records import BadInput
from workflow_scripts.core.sections import Train
from workflow_scripts.training import bins, logps, trainer
from workflow_scripts.training.flops import forward_flops
from workflow_scripts.training.logps import load_policy, sampled_logps
from workflow_scripts.training.objectives import OBJECTIVES, Tokens, clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    set_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, bos_token_id=0, eos_token_id=1, initializer_range=0.2,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("model")
    LlamaForCausalLM(config).save_pretrained(path)
    return str(path)


@pytest.fixture
def model(folder):
    torch.set_num_threads(1)
    return load_policy(folder, "float32").eval()


@pytest.fixture(scope="module")
def stock(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def make_rows(count=12, seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        length = int(rng.integers(2, 20))
        rows.append(
            {
                "qid": f"r{i}",
                "prompt_tokens": rng.integers(2, 50, rng.integers(1, 10)).tolist(),
                "tokens": rng.integers(2, 50, length).tolist(),
                "mask": [1] + rng.integers(0, 2, length - 1).tolist(),
                "advantage": float(rng.choice([-1, 1])),
                "policy": "p",
            }
        )
    return rows


def own_logps(stock, row, temperature=1.0):
    """The long way: one sequence at a time, all logits, transformers' own forward pass."""
    ids = torch.tensor([row["prompt_tokens"] + row["tokens"]])
    logits = stock(input_ids=ids).logits[0, :-1].float() / temperature
    logps = logits.log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
    return logps[len(row["prompt_tokens"]) - 1 :][torch.tensor(row["mask"]) == 1]


def packed(model, rows, temperature=1.0):
    flat = sampled_logps(model, bins.collate(rows, 0), temperature)
    return flat.split([sum(row["mask"]) for row in rows])


@torch.no_grad()
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_packed_equals_one_at_a_time(model, stock, temperature):
    rows = make_rows()
    for ours, row in zip(packed(model, rows, temperature), rows):
        torch.testing.assert_close(ours, own_logps(stock, row, temperature), atol=2e-6, rtol=0)


@torch.no_grad()
def test_changing_one_row_leaves_the_others_bit_equal(model):
    rows = make_rows()
    before = packed(model, rows)
    rows[3] = rows[3] | {"tokens": [(token + 1) % 50 for token in rows[3]["tokens"]]}
    after = packed(model, rows)
    for number, (one, other) in enumerate(zip(before, after)):
        assert torch.equal(one, other) == (number != 3)


def test_the_plan_covers_every_row_once_per_epoch_and_is_the_same_each_time():
    lengths = np.random.default_rng(0).integers(5, 60, 101).tolist()
    planned, steps = bins.plan(lengths, batch_size=16, epochs=3, budget=128, seed=7, world=2)
    assert (planned, steps) == bins.plan(lengths, 16, 3, 128, 7, 2)
    counts = np.bincount([row for one in planned for row in one.units])
    assert counts.tolist() == [3] * 101
    assert len(planned) == 3 * 7 * steps * 2
    assert all(sum(lengths[row] for row in one.units) <= 128 for one in planned)
    for update in range(21):
        members = planned[update * steps * 2 : (update + 1) * steps * 2]
        assert all(sorted(one.update) == sorted(row for m in members for row in m.units) for one in members)


def test_updates_per_round_shares_the_rows_out():
    planned, steps = bins.plan([10] * 21, 999, 1, 10_000, 0, updates=4)
    assert steps == 1 and [len(one.units) for one in planned] == [6, 5, 5, 5]
    assert sorted(row for one in planned for row in one.units) == list(range(21))


def fit(folder, rows, tmp_path, name="state", **changes):
    settings = Train(**({"objective": "clip", "lr": 1e-3, "batch_size": 4, "save_steps": 1, "threads": 1} | changes))
    torch.set_num_threads(1)
    return trainer.fit(folder, rows, settings, temperature=1.0, seed=0, state=str(tmp_path / name), pad=0)


def weights(model) -> str:
    state = model.state_dict()
    return hashlib.sha256(b"".join(state[key].numpy().tobytes() for key in sorted(state))).hexdigest()


@torch.no_grad()
def with_behaviour(model, rows):
    return [row | {"behaviour": values.numpy(), "foreign": False} for row, values in zip(rows, packed(model, rows))]


def test_the_ratio_is_one_at_the_first_update(model, folder, tmp_path):
    first = trainer.history(fit(folder, with_behaviour(model, make_rows()), tmp_path, batch_size=12))[0]
    assert first["ratio"] == pytest.approx(1, abs=1e-5) and first["clipped"] == 0
    assert first["kl_behaviour"] == pytest.approx(0, abs=1e-6)


def test_accumulation_does_not_change_the_gradient(folder, tmp_path):
    norms = []
    for budget in (10_000, 64, 1):
        run = fit(folder, make_rows(), tmp_path, f"s{budget}", objective="sft", batch_size=12, tokens_per_bin=budget)
        norms.append(trainer.history(run)[0]["grad_norm"])
    assert norms == pytest.approx([norms[0]] * 3, rel=1e-5)


def test_stop_and_resume_give_the_same_weights(folder, tmp_path):
    rows = make_rows(24)
    whole = fit(folder, rows, tmp_path, "whole", objective="sft").model

    class Killed(BaseException):
        pass

    def stop(self, args, state, control, **_):
        if state.global_step == 4:
            raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(trainer.Watch, "on_step_begin", stop, raising=False)
        fit(folder, rows, tmp_path, "half", objective="sft")
    torn = tmp_path / "half" / "checkpoint-99"
    torn.mkdir()  # a state that was being written when the run was killed
    resumed = fit(folder, rows, tmp_path, "half", objective="sft")
    assert resumed.state.global_step == 6
    assert weights(resumed.model) == weights(whole) != weights(load_policy(folder, "float32"))


def test_bf16_training_keeps_fp32_masters_so_small_updates_count(folder, tmp_path):
    before = load_policy(folder, "float32").state_dict()
    run = fit(folder, make_rows(), tmp_path, objective="sft", lr=1e-6, batch_size=12, dtype="bfloat16", warmup=0)
    after = run.model.state_dict()
    steps = torch.cat([(after[name] - before[name]).abs().flatten() for name in before if "proj" in name])
    assert after["lm_head.weight"].dtype == torch.float32
    assert (steps > 0).float().mean() > 0.9 and steps.max() < 2e-6


def test_nan_aborts_with_the_update(folder, tmp_path):
    rows = make_rows()
    rows[5]["advantage"] = math.nan
    with pytest.raises(FloatingPointError, match="the loss is not finite at update"):
        fit(folder, rows, tmp_path)


def tokens(logp, behaviour, advantage, foreign=False, row=None, pair=None, reference=None):
    """Sampled tokens, each a row of its own unless `row` says otherwise."""
    row = torch.tensor(range(len(logp)) if row is None else row, dtype=torch.int64)
    return Tokens(
        logp=torch.tensor(logp, requires_grad=True), behaviour=torch.tensor(behaviour),
        reference=torch.tensor(behaviour if reference is None else reference), advantage=torch.tensor(advantage),
        foreign=torch.full((len(logp),), foreign), length=torch.bincount(row, minlength=1)[row].float(),
        row=row, pair=row if pair is None else torch.tensor(pair, dtype=torch.int64),
    )  # fmt: skip


def given(**changes) -> Train:
    return Train.model_validate(changes)


@pytest.mark.parametrize(
    ("ratio", "advantage", "gain", "gradient"),
    [
        (1.0, 1.0, 1.0, 1.0), (1.5, 1.0, 1.3, 0.0), (1.5, -1.0, -1.5, -1.5), (0.5, 1.0, 0.5, 0.5),
        (0.5, -1.0, -0.8, 0.0), (1.25, 2.0, 2.5, 2.5),
    ],
)  # fmt: skip
def test_the_clipped_surrogate(ratio, advantage, gain, gradient):
    batch = tokens([-1.0], [-1.0 - math.log(ratio)], [advantage])
    total, metrics = clip(batch, given(clip_high=0.3))
    total.backward()
    assert total.item() == pytest.approx(-gain, abs=1e-6)
    assert batch.logp.grad.item() == pytest.approx(-gradient, abs=1e-6)
    assert metrics["clipped"].item() == (gradient == 0)


def test_foreign_tokens_are_never_weighted_by_a_ratio():
    batch = tokens([-1.0, -3.0], [-9.0, -0.1], [1.0, -1.0], foreign=True)
    total, _ = clip(batch, given())
    total.backward()
    assert batch.logp.grad.tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_take_an_empty_bin(name):
    total, metrics = OBJECTIVES[name](tokens([], [], []), given(kl=0.1))
    assert total.item() == 0 and all(value.item() == 0 for value in metrics.values())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_are_documented(name):
    assert "Σ" in OBJECTIVES[name].__doc__


def test_ips_cuts_the_ratio_off_above_and_averages_within_rows():
    batch = tokens(
        [-1.0, -1.0, -1.0], [-1.0 - math.log(1.1), -1.0 - math.log(3), -0.5], [2.0, 2.0, -1.0], row=[0, 0, 1]
    )
    total, metrics = OBJECTIVES["ips"](batch, given())
    total.backward()
    assert batch.logp.grad.tolist() == pytest.approx([-1.1, -1.2, math.exp(-0.5)], rel=1e-5)
    assert metrics["clipped"].item() == pytest.approx(0.5)


def test_the_likelihood_term_of_ips_is_a_tenth_on_wrong_answers():
    batch = tokens([-1.0, -1.0], [-1.0, -1.0], [1.0, -1.0])
    plain, _ = OBJECTIVES["ips"](batch, given())
    held, _ = OBJECTIVES["ips"](batch, given(kl=0.5))
    (held - plain).backward()
    assert batch.logp.grad.tolist() == pytest.approx([-0.5, -0.05])


def test_topr_weights_wrong_answers_by_their_sequence_and_right_ones_fully():
    batch = tokens([-2.0, -2.0, -2.0, -2.0], [-1.0, -1.5, -2.5, -1.0], [-1.0, -1.0, -1.0, 1.0], row=[0, 0, 1, 2])
    OBJECTIVES["topr"](batch, given())[0].backward()
    assert batch.logp.grad.tolist() == pytest.approx([math.exp(-1.5), math.exp(-1.5), 1.0, -1.0])


def test_dpo_by_hand():
    batch = tokens(
        [-1.0, -2.0, -3.0, -1.0], [0.0] * 4, [1.0, 1.0, -1.0, -1.0], row=[0, 0, 1, 1], pair=[0, 0, 0, 0],
        reference=[-1.5, -2.0, -2.0, -1.5],
    )  # fmt: skip
    total, metrics = OBJECTIVES["dpo"](batch, given(dpo_beta=0.5, nll_weight=0.3))
    margin = 0.5 * (0.5 - (-1.0 + 0.5))
    assert total.item() == pytest.approx(math.log(1 + math.exp(-margin)) + 0.3 * 1.5)
    assert metrics["preferred"] == 1 and metrics["margin"].item() == pytest.approx(margin)
    total.backward()
    pull = 0.5 / (1 + math.exp(margin))
    assert batch.logp.grad.tolist() == pytest.approx([-pull - 0.15, -pull - 0.15, pull, pull])


def expected_gradient(estimate, logits, behaviour):
    """Σ_y μ(y) ∇ estimate(log π(y)): the mean of a Monte Carlo gradient over samples of μ, without the noise."""
    logits = logits.clone().requires_grad_()
    (behaviour.exp() * estimate(logits.log_softmax(-1))).sum().backward()
    return logits.grad


def test_the_mean_gradients_of_the_kl_terms_are_those_of_the_exact_divergences():
    torch.manual_seed(0)
    logits, behaviour, reference = (torch.randn(7, dtype=torch.float64).log_softmax(-1) for _ in range(3))

    def by_token(name, advantage, settings):
        def estimate(logp):
            one = torch.ones(1, dtype=torch.float64)
            batches = [
                Tokens(value[None], mu[None], ref[None], advantage * one, one < 0, one, one.long() - 1, one.long() - 1)
                for value, mu, ref in zip(logp, behaviour, reference)
            ]
            return torch.stack([OBJECTIVES[name](batch, settings)[0] for batch in batches])

        return estimate

    reverse, forward = (logits.clone().requires_grad_() for _ in range(2))
    (reverse.softmax(-1) * (reverse.log_softmax(-1) - reference)).sum().backward()  # KL(π || π_ref)
    (behaviour.exp() * (behaviour - forward.log_softmax(-1))).sum().backward()  # KL(μ || π)
    ours = expected_gradient(by_token("clip", 0.0, given(kl=1.0)), logits, behaviour)
    torch.testing.assert_close(ours, reverse.grad, atol=1e-12, rtol=0)
    ours = expected_gradient(by_token("ips", 0.0, given(kl=10.0)), logits, behaviour)  # 0.1 of it where A ≤ 0
    torch.testing.assert_close(ours, forward.grad, atol=1e-12, rtol=0)


@pytest.mark.parametrize("kept", [0, 2**28], ids=["computed_again", "kept"])
@pytest.mark.parametrize("bias", [False, True])
def test_the_chunked_head_equals_log_softmax_and_its_gradients(monkeypatch, kept, bias):
    monkeypatch.setattr(logps, "CHUNK", {"cpu": 4 * 30 * 5})  # five rows at a time
    monkeypatch.setattr(logps, "KEPT", {"cpu": kept})
    torch.manual_seed(0)
    leaves = [torch.randn(23, 8), torch.randn(30, 8), *([torch.randn(30)] if bias else [])]
    ours, theirs = ([leaf.clone().requires_grad_() for leaf in leaves] for _ in range(2))
    targets, weights = torch.randint(30, (23,)), torch.randn(23)
    values = logps.TokenLogps.apply(*ours[:2], ours[2] if bias else None, targets, 0.7)
    logits = torch.nn.functional.linear(*theirs) / 0.7
    expected = logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    (values * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(values, expected, atol=2e-6, rtol=0)
    for mine, right in zip(ours, theirs):
        torch.testing.assert_close(mine.grad, right.grad, atol=1e-5, rtol=1e-5)


def test_models_that_rescale_their_logits_are_refused(tmp_path):
    config = Gemma2Config(
        vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8,
    )  # fmt: skip
    Gemma2ForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(BadInput, match="final_logit_softcapping"):
        load_policy(str(tmp_path), "float32")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (OPTConfig(hidden_size=32, ffn_dim=64, word_embed_proj_dim=32), "dropout that stays on"),
        (BloomConfig(hidden_size=32, n_layer=2, n_head=4, initializer_range=0.2), "mixes rows"),
        (GptOssConfig(hidden_size=32, intermediate_size=64, num_local_experts=4, head_dim=8), "uses s_aux"),
    ],
    ids=["dropout", "own_attention", "sinks"],
)
def test_models_whose_rows_cannot_be_packed_are_refused(tmp_path, config, reason):
    small = {"vocab_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config.update(small)
    if config.model_type == "gpt_oss":
        config.layer_types = config.layer_types[:2]
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(BadInput, match=reason):
        load_policy(str(tmp_path), "float32")


@torch.no_grad()
def test_a_row_longer_than_a_sliding_window_is_refused(tmp_path):
    config = MistralConfig(
        vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=16,
    )  # fmt: skip
    MistralForCausalLM(config).save_pretrained(tmp_path)
    policy, stock = load_policy(str(tmp_path), "float32"), AutoModelForCausalLM.from_pretrained(tmp_path)
    short = {"prompt_tokens": [3, 4], "tokens": [5] * 14, "mask": [1] * 14}
    torch.testing.assert_close(packed(policy, [short])[0], own_logps(stock.eval(), short), atol=2e-6, rtol=0)
    with pytest.raises(BadInput, match="sliding window of 16"):
        packed(policy, [short | {"tokens": [5] * 15, "mask": [1] * 15}])


def causal_flops(query) -> int:
    """torch's counter takes attention for square; the kernel skips what lies above the diagonal."""
    batch, heads, length, width = query
    return 2 * batch * heads * length * (length + 1) * width


def test_no_more_operations_than_needed(tmp_path):
    config = LlamaConfig(
        vocab_size=8_000, hidden_size=256, intermediate_size=704, num_hidden_layers=2, num_attention_heads=4,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    policy, rng = load_policy(str(tmp_path), "float32").train(), np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(math.log(150), 0.8, 12), 4, 700).astype(int)
    rows = [
        {"prompt_tokens": [5] * (n // 2), "tokens": [7] * (n - n // 2), "mask": [1] * (n - n // 2)}
        for n in sorted(lengths)
    ]
    counted = {
        torch.ops.aten.addmm_: lambda out, left, right, **_: 2 * left[0] * left[1] * right[1],  # not in torch's table
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, *_, **__: causal_flops(q),
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda g, q, *_, **__: 2 * causal_flops(q),
    }
    with FlopCounterMode(display=False, custom_mapping=counted) as counter:
        sampled_logps(policy, bins.collate(rows, 0)).sum().backward()
    needed = 3 * forward_flops(policy, lengths.tolist(), sum(sum(row["mask"]) for row in rows))
    assert 0.97 < counter.get_total_flops() / needed < 1.03
