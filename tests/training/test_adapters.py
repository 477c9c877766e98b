"""LoRA: only adapters are trained, nothing changes before the first update, and what is published is a plain model."""

import pytest
import torch
from transformers.utils import is_bitsandbytes_available

from tests.workshop import Killed, Workshop
from workflow_scripts.config.sections import Lora, Train
from workflow_scripts.core.errors import BadInput
from workflow_scripts.training.adapters import add_adapters
from workflow_scripts.training.watch import Watch

LORA = {"r": 4, "alpha": 8, "targets": ["q_proj", "v_proj"]}
FOUR_BITS = pytest.param(
    {"objective": "sft", "lora": LORA | {"bits": 4}},
    marks=pytest.mark.skipif(not is_bitsandbytes_available(), reason="bitsandbytes is not installed: make test-qlora"),
    id="4_bits",
)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="module")
def trained(workshop):
    """Return two epochs on adapters, and the log-prob file."""
    path = workshop.logp()
    return workshop.train("lora", "--logp", path, "--round", 1, epochs=2, lora=LORA) | {"logp": path}


def check_that_only_targets_changed(workshop: Workshop, name: str) -> None:
    """Check that a published model has the start's weights but for low-rank changes of the adapters' targets."""
    before, after = workshop.model().state_dict(), workshop.model(name).state_dict()
    assert before.keys() == after.keys()

    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {key for key in before if "q_proj" in key or "v_proj" in key}
    for key in changed:
        assert torch.linalg.matrix_rank(after[key] - before[key], rtol=1e-4) <= 4


def test_the_first_update_has_ratio_one(trained):
    first = trained["history"][0]

    assert first["ratio"] == pytest.approx(1, abs=1e-5)
    assert first["clipped"] == 0
    assert trained["updates"] == 4


def test_what_is_published_is_a_plain_model_with_only_the_targets_changed(workshop, trained):
    check_that_only_targets_changed(workshop, "lora")


def test_the_published_model_is_the_one_that_was_trained(workshop):
    """The adapters' answer equals that of the merged weights."""
    model, ids = workshop.model(), torch.arange(2, 12)[None]
    adapters = add_adapters(model, Lora(**LORA), 0)
    assert {name.split(".")[-3] for name, p in model.named_parameters() if p.requires_grad} == {"lora_A", "lora_B"}

    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)

    with torch.no_grad():
        expected = model(ids).logits
        torch.testing.assert_close(adapters.merge_and_unload()(ids).logits, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("settings", [FOUR_BITS])
def test_in_4_bits_the_weights_that_are_published_are_whole(workshop, settings):
    four = workshop.train("four_bits", "--round", 1, epochs=4, lr=1e-2, **settings)
    check_that_only_targets_changed(workshop, "four_bits")
    after = workshop.model("four_bits").state_dict()
    assert {value.dtype for value in after.values()} == {torch.float32}

    whole = workshop.train("whole", "--round", 1, epochs=4, lr=1e-2, objective="sft", lora=LORA)
    losses = [entry["loss"] for entry in four["history"]]
    assert 0 < abs(losses[0] - whole["history"][0]["loss"]) < 0.5  # the weights below the adapters are rounded
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("settings", [pytest.param({"lora": LORA}, id="whole"), FOUR_BITS])
def test_a_resumed_training_is_the_same(workshop, trained, monkeypatch, settings):
    def stop(self, args, state, control, **_):
        if state.global_step == 2:
            raise Killed

    options = ("--logp", trained["logp"], "--round", 1)
    states = workshop.folder / "run/state/r1"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Watch, "on_step_begin", stop, raising=False)
        workshop.train("again", *options, epochs=2, **settings)

    # The killed training would have let go of its lock, and left no record of what was published.
    (states / "lock").unlink(missing_ok=True)
    for record in states.glob("*.json"):
        record.unlink()
    assert list(states.glob("*/checkpoint-2"))

    resumed = workshop.train("again", *options, epochs=2, **settings)
    undisturbed = workshop.train("undisturbed", *options, epochs=2, **settings)
    assert resumed["digest"] == undisturbed["digest"]


def test_layers_that_do_not_exist_are_named(workshop):
    with pytest.raises(BadInput, match=r"train\.lora\.targets: .*w_proj"):
        add_adapters(workshop.model(), Lora(targets=["w_proj"]), 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"lora": {"dropout": 0.1}},
        {"lora": {}, "optimizer": "carry"},
        {"lora": {}, "deepspeed": {}},
        {"lora": {"bits": 4}},
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes):
    with pytest.raises(ValueError, match="lora"):
        Train(**changes)


def test_supervised_training_takes_dropout():
    assert Train(objective="sft", lora={"dropout": 0.1}).lora.dropout == 0.1
