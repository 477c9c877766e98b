"""The trainer on a small Llama: gradients, resumption, precision and faults."""

import hashlib
import math

import pytest
import torch

from tests.workshop import Killed, logps_packed, make_rows
from workflow_scripts.config.sections import Train
from workflow_scripts.training import trainer
from workflow_scripts.training.logps import load_policy
from workflow_scripts.training.watch import Watch

SETTINGS = {"objective": "clip", "lr": 1e-3, "batch_size": 4, "save_steps": 1, "threads": 1}


def fit(folder, rows, tmp_path, name="state", **changes):
    torch.set_num_threads(1)
    settings = Train(**SETTINGS | changes)
    return trainer.fit(folder, rows, settings, temperature=1.0, seed=0, state=str(tmp_path / name), pad=0)


def weights(model) -> str:
    """Return a digest of a model's weights."""
    state = model.state_dict()
    return hashlib.sha256(b"".join(state[key].numpy().tobytes() for key in sorted(state))).hexdigest()


@torch.no_grad()
def with_behaviour(model, rows):
    """Return rows with the model's own log-probs as those of the policy that sampled them."""
    logps = logps_packed(model, rows)
    return [row | {"behaviour_logps": values.numpy(), "foreign": False} for row, values in zip(rows, logps)]


def test_the_ratio_is_one_at_the_first_update(model, folder, tmp_path):
    first = trainer.history(fit(folder, with_behaviour(model, make_rows()), tmp_path, batch_size=12))[0]

    assert first["ratio"] == pytest.approx(1, abs=1e-5)
    assert first["clipped"] == 0
    assert first["kl_behaviour"] == pytest.approx(0, abs=1e-6)


def test_accumulation_does_not_change_the_gradient(folder, tmp_path):
    norms = []
    for budget in (10_000, 64, 1):
        run = fit(folder, make_rows(), tmp_path, f"s{budget}", objective="sft", batch_size=12, tokens_per_bin=budget)
        norms.append(trainer.history(run)[0]["grad_norm"])

    assert norms == pytest.approx([norms[0]] * 3, rel=1e-5)


def test_the_entropy_bonus_keeps_a_policy_undecided(model, folder, tmp_path):
    rows = with_behaviour(model, make_rows())
    settings = {"batch_size": 12, "epochs": 10, "lr": 3e-3}
    plain = trainer.history(fit(folder, rows, tmp_path, "plain", **settings))
    bonus = trainer.history(fit(folder, rows, tmp_path, "bonus", entropy=1.0, **settings))

    assert "exact_entropy" not in plain[0]
    assert bonus[0]["loss"] == pytest.approx(plain[0]["loss"] - bonus[0]["exact_entropy"], rel=1e-4)
    assert bonus[-1]["exact_entropy"] > bonus[0]["exact_entropy"] + 0.05


def test_stop_and_resume_give_the_same_weights(folder, tmp_path):
    rows = make_rows(24)
    whole = fit(folder, rows, tmp_path, "whole", objective="sft").model

    def stop(self, args, state, control, **_):
        if state.global_step == 4:
            raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Watch, "on_step_begin", stop, raising=False)
        fit(folder, rows, tmp_path, "half", objective="sft")

    torn = tmp_path / "half" / "checkpoint-99"
    torn.mkdir()  # a state that was being written when the run was killed
    resumed = fit(folder, rows, tmp_path, "half", objective="sft")

    assert resumed.state.global_step == 6
    assert weights(resumed.model) == weights(whole) != weights(load_policy(folder, "float32"))


def test_bf16_training_keeps_fp32_masters_so_small_updates_count(folder, tmp_path):
    before = load_policy(folder, "float32").state_dict()
    run = fit(folder, make_rows(), tmp_path, objective="sft", lr=1e-6, batch_size=12, dtype="bfloat16", warmup=0)
    after = {name: value.full_tensor() for name, value in run.model.state_dict().items()}

    steps = torch.cat([(after[name] - before[name]).abs().flatten() for name in before if "proj" in name])
    assert after["lm_head.weight"].dtype == torch.float32
    assert (steps > 0).float().mean() > 0.9
    assert steps.max() < 2e-6


def test_nan_aborts_with_the_update(folder, tmp_path):
    rows = make_rows()
    rows[5]["advantage"] = math.nan

    with pytest.raises(FloatingPointError, match="the loss is not finite at update"):
        fit(folder, rows, tmp_path)


def test_a_missing_log_prob_aborts_in_place_of_being_taken_for_0(folder, tmp_path):
    rows = [row | {"foreign": False} for row in make_rows()]  # rows of this policy, without stored log-probs

    with pytest.raises(FloatingPointError, match="the loss is not finite at update 1"):
        fit(folder, rows, tmp_path)
