"""Weights that are published in bf16 for engines, beside the fp32 ones that the next round goes on from."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.workshop import Workshop
from workflow_scripts.core.checkpoint import engine_folder, model_folder
from workflow_scripts.core.files import read_json
from workflow_scripts.core.running import soundness

SETTINGS = {"objective": "sft", "epochs": 1}
FOR_ENGINES = ("--engine-weights", "bfloat16")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="module")
def plain(workshop):
    return workshop.train("plain", **SETTINGS)


@pytest.fixture(scope="module")
def rounded(workshop):
    return workshop.train("rounded", *FOR_ENGINES, **SETTINGS)


def loaded(folder: str) -> dict[str, torch.Tensor]:
    """Return a model's weights as an engine in bf16 loads them."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).state_dict()


def test_the_policy_stays_what_it_is(plain, rounded):
    assert rounded["digest"] == plain["digest"]
    assert rounded["settings"] == plain["settings"]
    assert "engine" not in plain


def test_an_engine_loads_the_same_weights_from_half_the_bytes(workshop, plain, rounded):
    checkpoint = workshop.folder / "rounded/checkpoint.json"
    folder = engine_folder(checkpoint, "bfloat16")
    assert folder.endswith("rounded/engine")
    assert engine_folder(checkpoint, "float32") == model_folder(checkpoint)
    assert engine_folder(workshop.folder / "plain/checkpoint.json", "bfloat16").endswith("plain/model")

    ours, theirs = loaded(folder), loaded(model_folder(checkpoint))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)

    stored = load_file(f"{folder}/model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.bfloat16}
    assert read_json(f"{folder}/config.json")["dtype"] == "bfloat16"
    names = [{path.name for path in (workshop.folder / f"rounded/{kind}").iterdir()} for kind in ("engine", "model")]
    assert names[0] == names[1]


def test_a_training_without_the_setting_removes_weights_of_an_earlier_policy(workshop, rounded):
    workshop.train("changed", *FOR_ENGINES, **SETTINGS)
    assert (workshop.folder / "changed/engine").is_dir()

    again = workshop.train("changed", **SETTINGS | {"lr": 1e-2})
    checkpoint = workshop.folder / "changed/checkpoint.json"
    assert not (workshop.folder / "changed/engine").exists()
    assert "engine" not in again
    assert engine_folder(checkpoint, "bfloat16") == model_folder(checkpoint)


def test_changed_weights_for_engines_are_noticed(workshop, rounded):
    checkpoint = workshop.folder / "rounded/checkpoint.json"
    assert soundness.damage_of_checkpoint(checkpoint) is None

    weights = workshop.folder / "rounded/engine/model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    damage = soundness.damage_of_checkpoint(checkpoint)
    weights.write_bytes(content)
    assert damage is not None and damage.endswith("/rounded/engine is not what was written")
