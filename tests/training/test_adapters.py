"""LoRA: only adapters are trained, nothing changes before the first update, and what is published is a plain model."""

import pytest
import torch
from transformers.utils import is_bitsandbytes_available

from tests.test_train_stage import Workshop
from workflow_scripts.core.records import BadInput
from workflow_scripts.core.sections import Lora, Train
from workflow_scripts.training.adapters import adapted

LORA = {"r": 4, "alpha": 8, "targets": ["q_proj", "v_proj"]}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="module")
def trained(workshop):
    path = workshop.logp()
    return workshop.train("lora", "--logp", path, "--round", 1, epochs=2, lora=LORA) | {"logp": path}


def test_the_first_update_has_ratio_one(trained):
    first = trained["history"][0]
    assert first["ratio"] == pytest.approx(1, abs=1e-5) and first["clipped"] == 0 and trained["updates"] == 4


def test_what_is_published_is_a_plain_model_with_only_the_targets_changed(workshop, trained):
    before, after = workshop.model().state_dict(), workshop.model("lora").state_dict()
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if "q_proj" in name or "v_proj" in name}
    for name in changed:
        assert torch.linalg.matrix_rank(after[name] - before[name], rtol=1e-4) <= 4


def test_the_published_model_is_the_one_that_was_trained(workshop):
    """The adapters' answer equals that of the merged weights."""
    model, ids = workshop.model(), torch.arange(2, 12)[None]
    adapters = adapted(model, Lora(**LORA), 0)
    assert {name.split(".")[-3] for name, p in model.named_parameters() if p.requires_grad} == {"lora_A", "lora_B"}
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    with torch.no_grad():
        expected = model(ids).logits
        torch.testing.assert_close(adapters.merge_and_unload()(ids).logits, expected, atol=1e-4, rtol=1e-4)


FOUR_BITS = pytest.param(
    {"objective": "sft", "lora": LORA | {"bits": 4}},
    marks=pytest.mark.skipif(not is_bitsandbytes_available(), reason="bitsandbytes is not installed: make test-qlora"),
)


@pytest.mark.parametrize("settings", [FOUR_BITS])
def test_in_4_bits_the_weights_that_are_published_are_whole(workshop, settings):
    found = workshop.train("four_bits", "--round", 1, epochs=4, lr=1e-2, **settings)
    before, after = workshop.model().state_dict(), workshop.model("four_bits").state_dict()
    assert {after[name].dtype for name in after} == {torch.float32} and before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if "q_proj" in name or "v_proj" in name}
    for name in changed:
        assert torch.linalg.matrix_rank(after[name] - before[name], rtol=1e-4) <= 4
    whole = workshop.train("whole", "--round", 1, epochs=4, lr=1e-2, objective="sft", lora=LORA)
    (four, *_, last), (other, *_) = ([one["loss"] for one in run["history"]] for run in (found, whole))
    assert 0 < abs(four - other) < 0.5 and last < four  # other weights beneath, that much the same


@pytest.mark.parametrize("settings", [{"lora": LORA}, FOUR_BITS])
def test_resumed_it_is_the_same(workshop, trained, monkeypatch, settings):
    from workflow_scripts.training import trainer

    class Killed(BaseException):
        pass

    def stop(self, args, state, control, **_):
        if state.global_step == 2:
            raise Killed

    options = ("again", "--logp", trained["logp"], "--round", 1)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(trainer.Watch, "on_step_begin", stop, raising=False)
        workshop.train(*options, epochs=2, **settings)
    (workshop.folder / "run/state/r1").joinpath("lock").unlink(missing_ok=True)
    for record in (workshop.folder / "run/state/r1").glob("*.json"):
        record.unlink()
    assert list((workshop.folder / "run/state/r1").glob("*/checkpoint-2"))
    resumed = workshop.train(*options, epochs=2, **settings)
    assert resumed["digest"] == workshop.train("undisturbed", *options[1:], epochs=2, **settings)["digest"]


def test_layers_that_are_not_there_are_named(workshop):
    with pytest.raises(BadInput, match=r"train\.lora\.targets: .*w_proj"):
        adapted(workshop.model(), Lora(targets=["w_proj"]), 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"lora": {"dropout": 0.1}},
        {"lora": {}, "optimizer": "carry"},
        {"lora": {}, "deepspeed": {}},
        {"lora": {"bits": 4}},
    ],
)
def test_what_does_not_go_together_is_said(changes):
    with pytest.raises(ValueError, match="lora"):
        Train(**changes)
    assert Train(objective="sft", lora={"dropout": 0.1}).lora.dropout == 0.1
