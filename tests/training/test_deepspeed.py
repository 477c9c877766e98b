"""Training under DeepSpeed, in two processes. Run by `make test-deepspeed`."""

import math
from importlib.util import find_spec

import pytest
import torch

from tests.workshop import TORCHRUN, Workshop, check_histories, make_pairs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs DeepSpeed's environment: make test-deepspeed"),
]


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_zero_saves_and_reloads_fp32_weights(tmp_path, stage, tied):
    workshop = Workshop(tmp_path, tied)
    path = workshop.logp()

    one = workshop.train("one", "--logp", path, epochs=2)
    many = workshop.train("many", "--logp", path, launcher=TORCHRUN, epochs=2, deepspeed={"stage": stage})

    check_histories(many, one, 1e-4)
    for (name, ours), theirs in zip(workshop.model("many").named_parameters(), workshop.model("one").parameters()):
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=0, msg=name)


def test_dpo_begins_at_ln_2(tmp_path):
    workshop = Workshop(tmp_path)
    workshop.write(make_pairs())
    reference = ("--ref-logp", workshop.logp(), "--reference", workshop.checkpoint)

    settings = {"objective": "dpo", "nll_weight": 0, "batch_size": 8, "deepspeed": {"stage": 3}}
    history = workshop.train("dpo", *reference, launcher=TORCHRUN, **settings)["history"]

    assert history[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)


def test_log_probs_survive_a_bf16_run_as_fp32(tmp_path):
    """They reach the objective uncast: the ratio of the first update is 1."""
    workshop = Workshop(tmp_path)
    path = workshop.logp(dtype="bfloat16")

    settings = {"dtype": "bfloat16", "deepspeed": {"stage": 2}}
    history = workshop.train("bf16", "--logp", path, launcher=TORCHRUN, **settings)["history"]

    assert history[0]["ratio"] == pytest.approx(1, abs=1e-6)
    assert history[0]["ess"] == pytest.approx(1, abs=1e-6)


def test_a_bf16_run_publishes_fp32_weights(tmp_path):
    """They are whole fp32 values, not rounded ones."""
    workshop = Workshop(tmp_path)
    path = workshop.logp(dtype="bfloat16")

    workshop.train("bf16", "--logp", path, launcher=TORCHRUN, dtype="bfloat16", deepspeed={"stage": 2})

    before, after = workshop.model("start").state_dict(), workshop.model("bf16").state_dict()
    rounded = [torch.equal(value, value.bfloat16().float()) for name, value in after.items() if "proj" in name]
    assert before.keys() == after.keys()
    assert all(value.dtype == torch.float32 for value in after.values())
    assert not any(rounded)
