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


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_zero_trains_as_one_process_does(tmp_path, stage, tied, dtype):
    """In bf16 too, training begins from the exact fp32 weights, and ratios begin at 1."""
    workshop = Workshop(tmp_path, tied)
    path = workshop.logp(dtype=dtype)
    settings = {"dtype": dtype, "epochs": 2, "tokens_per_bin": 64}

    one = workshop.train("one", "--logp", path, **settings)
    many = workshop.train("many", "--logp", path, launcher=TORCHRUN, deepspeed={"stage": stage}, **settings)

    tolerance = 1e-4 if dtype == "float32" else 5e-3
    check_histories(many, one, tolerance)
    assert many["history"][0]["ratio"] == 1
    for (name, ours), theirs in zip(workshop.model("many").named_parameters(), workshop.model("one").parameters()):
        torch.testing.assert_close(ours, theirs, atol=2 * tolerance, rtol=0, msg=name)


def test_dpo_begins_at_ln_2(tmp_path):
    workshop = Workshop(tmp_path)
    workshop.write(make_pairs())
    reference = ("--ref-logp", workshop.logp(), "--reference", workshop.checkpoint)

    settings = {"objective": "dpo", "nll_weight": 0, "batch_size": 8, "deepspeed": {"stage": 3}}
    history = workshop.train("dpo", *reference, launcher=TORCHRUN, **settings)["history"]

    assert history[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)


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
