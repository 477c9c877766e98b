"""Invariants of bins, attention, log-probs, objectives and the trainer, on a small Llama."""

import hashlib
import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, set_seed

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
