"""Invariants of bins, attention, log-probs, objectives and the trainer, on a small Llama."""

import hashlib
import math

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, set_seed

from workflow_scripts.core.config import Train
from workflow_scripts.training import bins, trainer
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


def own_logps(model, row):
    """The long way: one sequence at a time, all logits, the model's stock attention."""
    model.set_attn_implementation("sdpa")
    ids = torch.tensor([row["prompt_tokens"] + row["tokens"]])
    logps = model(input_ids=ids).logits[0, :-1].float().log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
    model.set_attn_implementation("segments")
    return logps[len(row["prompt_tokens"]) - 1 :][torch.tensor(row["mask"]) == 1]


def packed(model, rows, temperature=1.0):
    flat = sampled_logps(model, bins.collate(rows, 0), temperature)
    return flat.split([sum(row["mask"]) for row in rows])


@torch.no_grad()
def test_packed_equals_one_at_a_time(model):
    rows = make_rows()
    for ours, row in zip(packed(model, rows), rows):
        torch.testing.assert_close(ours, own_logps(model, row), atol=2e-6, rtol=0)


@torch.no_grad()
def test_changing_one_row_leaves_the_others_bit_equal(model):
    rows = make_rows()
    before = packed(model, rows)
    rows[3] = rows[3] | {"tokens": [(token + 1) % 50 for token in rows[3]["tokens"]]}
    after = packed(model, rows)
    for number, (one, other) in enumerate(zip(before, after)):
        assert torch.equal(one, other) == (number != 3)


@torch.no_grad()
def test_temperature_divides_the_logits(model):
    row = make_rows(1)[0]
    ids = torch.tensor([row["prompt_tokens"] + row["tokens"]])
    logits = model(
        input_ids=ids, position_ids=torch.arange(ids.shape[1])[None], lengths=torch.tensor([ids.shape[1]])
    ).logits
    expected = (logits[0, :-1] / 0.7).log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
    expected = expected[len(row["prompt_tokens"]) - 1 :][torch.tensor(row["mask"]) == 1]
    torch.testing.assert_close(packed(model, [row], 0.7)[0], expected)


def test_the_plan_covers_every_row_once_per_epoch_and_is_the_same_each_time():
    lengths = np.random.default_rng(0).integers(5, 60, 101).tolist()
    planned, steps = bins.plan(lengths, lengths, batch_size=16, epochs=3, budget=128, seed=7, world=2)
    assert (planned, steps) == bins.plan(lengths, lengths, 16, 3, 128, 7, 2)
    counts = np.bincount([row for one in planned for row in one.rows])
    assert counts.tolist() == [3] * 101
    assert len(planned) == 3 * 7 * steps * 2
    assert all(sum(lengths[row] for row in one.rows) <= 128 for one in planned)
    for update in range(21):
        members = planned[update * steps * 2 : (update + 1) * steps * 2]
        assert {one.tokens for one in members} == {sum(lengths[row] for one in members for row in one.rows)}


def fit(model, rows, tmp_path, name="state", **changes):
    settings = Train(**({"objective": "clip", "lr": 1e-3, "batch_size": 4, "save_steps": 1, "threads": 1} | changes))
    return trainer.fit(model, rows, settings.model_dump(mode="json"), 1.0, 0, str(tmp_path / name), pad=0)


def weights(model) -> str:
    state = model.state_dict()
    return hashlib.sha256(b"".join(state[key].numpy().tobytes() for key in sorted(state))).hexdigest()


@torch.no_grad()
def with_behaviour(model, rows):
    return [row | {"behaviour": values.numpy(), "foreign": False} for row, values in zip(rows, packed(model, rows))]


def test_the_ratio_is_one_at_the_first_update(model, folder, tmp_path):
    rows = with_behaviour(model, make_rows())
    result = fit(load_policy(folder, "float32"), rows, tmp_path, batch_size=12)
    first = result["history"][0]
    assert first["ratio"] == pytest.approx(1, abs=1e-5) and first["clipped"] == 0
    assert first["kl_behaviour"] == pytest.approx(0, abs=1e-6)


def test_accumulation_does_not_change_the_gradient(folder, tmp_path):
    norms = []
    for budget in (10_000, 64, 1):
        model = load_policy(folder, "float32")
        result = fit(model, make_rows(), tmp_path, f"s{budget}", objective="sft", batch_size=12, tokens_per_bin=budget)
        norms.append(result["history"][0]["grad_norm"])
    assert norms == pytest.approx([norms[0]] * 3, rel=1e-5)


def test_stop_and_resume_give_the_same_weights(folder, tmp_path):
    rows, whole, half = make_rows(24), load_policy(folder, "float32"), load_policy(folder, "float32")
    fit(whole, rows, tmp_path, "whole", objective="sft")

    class Killed(BaseException):
        pass

    def stop(self, args, state, control, **_):
        if state.global_step == 4:
            raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(trainer.Watch, "on_step_begin", stop, raising=False)
        fit(half, rows, tmp_path, "half", objective="sft")
    torn = tmp_path / "half" / "checkpoint-99"
    torn.mkdir()  # a state that was being written when the run was killed
    resumed = load_policy(folder, "float32")
    fit(resumed, rows, tmp_path, "half", objective="sft")
    assert weights(resumed) == weights(whole) != weights(half)


def test_bf16_training_keeps_fp32_masters_so_small_updates_count(folder, tmp_path):
    moved = load_policy(folder, "float32")
    before = {name: value.clone() for name, value in moved.state_dict().items()}
    fit(moved, make_rows(), tmp_path, objective="sft", lr=1e-6, batch_size=12, dtype="bfloat16", warmup=0)
    after = moved.state_dict()
    steps = torch.cat([(after[name] - before[name]).abs().flatten() for name in before if "proj" in name])
    assert after["lm_head.weight"].dtype == torch.float32
    assert (steps > 0).float().mean() > 0.9 and steps.max() < 2e-6


def test_nan_aborts_with_the_update(folder, tmp_path):
    rows = make_rows()
    rows[5]["advantage"] = math.nan
    with pytest.raises(FloatingPointError, match="the loss is nan at update"):
        fit(load_policy(folder, "float32"), rows, tmp_path)


def tokens(logp, behaviour, advantage, foreign=False):
    return Tokens(
        torch.tensor(logp, requires_grad=True), torch.tensor(behaviour), torch.tensor(advantage),
        torch.full((len(logp),), foreign),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ratio", "advantage", "gain", "gradient"),
    [
        (1.0, 1.0, 1.0, 1.0), (1.5, 1.0, 1.3, 0.0), (1.5, -1.0, -1.5, -1.5), (0.5, 1.0, 0.5, 0.5),
        (0.5, -1.0, -0.8, 0.0), (1.25, 2.0, 2.5, 2.5),
    ],
)  # fmt: skip
def test_the_clipped_surrogate(ratio, advantage, gain, gradient):
    batch = tokens([-1.0], [-1.0 - math.log(ratio)], [advantage])
    total, metrics = clip(batch, {"clip_low": 0.2, "clip_high": 0.3})
    total.backward()
    assert total.item() == pytest.approx(-gain, abs=1e-6)
    assert batch.logp.grad.item() == pytest.approx(-gradient, abs=1e-6)
    assert metrics["ratio"].item() == pytest.approx(ratio, rel=1e-6)


def test_foreign_tokens_are_never_weighted_by_a_ratio():
    batch = tokens([-1.0, -3.0], [-9.0, -0.1], [1.0, -1.0], foreign=True)
    total, _ = clip(batch, {"clip_low": 0.2, "clip_high": 0.2})
    total.backward()
    assert batch.logp.grad.tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_take_an_empty_bin(name):
    total, metrics = OBJECTIVES[name](tokens([], [], []), {"clip_low": 0.2, "clip_high": 0.2})
    assert total.item() == 0 and all(value.item() == 0 for value in metrics.values())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_are_documented(name):
    assert "Σ" in OBJECTIVES[name].__doc__
