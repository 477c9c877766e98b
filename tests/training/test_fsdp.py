"""Weights that are divided over two processes: the same training as in one, and the same log-probs."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, MixtralConfig, MixtralForCausalLM, set_seed

from tests.harness import REPOSITORY
from tests.workshop import TORCHRUN, Workshop, check_histories, small_llama
from workflow_scripts.core.files import read_json
from workflow_scripts.core.pickles import read_pickle
from workflow_scripts.training import fsdp, processes, publishing

# In fp32 only the order of additions differs. In bf16 a gradient's last bits do, and AdamW turns those of vanishing
# gradients into whole steps.
TOLERANCE = {"float32": 1e-5, "bfloat16": 5e-3}


SETTINGS = {"epochs": 2, "tokens_per_bin": 64}  # two bins in an update
SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def workshops(tmp_path_factory):
    """Return a workshop with untied embeddings, and one with tied ones."""
    return {tied: Workshop(tmp_path_factory.mktemp("workshop"), tied=tied) for tied in (False, True)}


@pytest.fixture(scope="module")
def workshop(workshops):
    return workshops[False]


@pytest.fixture(scope="module")
def whole(workshop):
    """Return an undisturbed training in two processes, and the log-prob file."""
    path = workshop.logp()
    return workshop.train("whole", "--logp", path, launcher=TORCHRUN, **SETTINGS) | {"logp": path}


def test_two_processes_train_as_one_does(workshop, whole):
    one = workshop.train("one", "--logp", whole["logp"], **SETTINGS)
    check_same(workshop, one, whole, "one", "whole", "float32")


@pytest.mark.long
@pytest.mark.parametrize(
    ("tied", "dtype"),
    [(True, "bfloat16"), pytest.param(True, "float32", marks=SLOW), pytest.param(False, "bfloat16", marks=SLOW)],
)
def test_two_processes_that_recompute_activations_train_as_one_does(workshops, tied, dtype):
    workshop = workshops[tied]
    path = workshop.logp(name=dtype, dtype=dtype)
    one = workshop.train("one", "--logp", path, dtype=dtype, **SETTINGS)
    two = workshop.train("two", "--logp", path, launcher=TORCHRUN, dtype=dtype, gradient_checkpointing=True, **SETTINGS)

    check_same(workshop, one, two, "one", "two", dtype)
    if dtype == "bfloat16":  # whole fp32 values, not rounded ones
        weight = workshop.model("two").state_dict()["lm_head.weight"]
        assert not torch.equal(weight, weight.bfloat16().float())


def check_same(workshop: Workshop, one: dict, two: dict, name_of_one: str, name_of_two: str, dtype: str) -> None:
    """Check two trainings against each other: histories, first ratios, and what they published."""
    check_histories(one, two, TOLERANCE[dtype])
    for history in (one["history"], two["history"]):
        assert history[0]["ratio"] == 1
        assert history[0]["kl_behaviour"] == 0

    configs = [read_json(workshop.folder / name / "model/config.json") for name in (name_of_one, name_of_two)]
    ours, theirs = (workshop.model(name).state_dict() for name in (name_of_one, name_of_two))
    assert configs[0] == configs[1]
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=TOLERANCE[dtype], rtol=0, msg=name)


@SLOW
@pytest.mark.parametrize(
    "settings",
    [
        {"objective": "clip", "mean_over": "rows", "entropy": 0.1},
        {"objective": "gspo", "mean_over": "constant", "mean_constant": 9},
        {"objective": "cispo"},
        {"objective": "kto"},
    ],
    ids=["clip", "gspo", "cispo", "kto"],
)
def test_objectives_are_the_same_in_two_processes(workshop, whole, settings):
    reference = (
        ("--ref-logp", whole["logp"], "--reference", workshop.checkpoint) if settings["objective"] == "kto" else ()
    )
    options = ("--logp", whole["logp"], *reference)
    one = workshop.train("one", *options, **SETTINGS | settings)
    two = workshop.train("two", *options, launcher=TORCHRUN, **SETTINGS | settings)

    check_same(workshop, one, two, "one", "two", "float32")


@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float32", marks=SLOW)])
def test_two_processes_store_the_log_probs_of_one(workshop, dtype):
    one = read_pickle(workshop.logp(name="alone", dtype=dtype, tokens_per_bin=64))
    path = workshop.logp(name="together", launcher=TORCHRUN, dtype=dtype, tokens_per_bin=64)
    two = read_pickle(path)

    assert list(one) == list(two)
    assert all((one[uid] == two[uid]).all() for uid in one)
    assert len(list((path.parent / "1_0.pkl.ledger").glob("*.jsonl"))) == 2


@pytest.mark.long
def test_a_stopped_training_goes_on_in_as_many_processes_or_in_one(workshop, whole, monkeypatch):
    states = workshop.folder / "run/state"
    shutil.rmtree(states)

    with monkeypatch.context() as patch:
        patch.setenv("JOB_DEADLINE", "1")
        with pytest.raises(AssertionError, match=r"exitcode *: 75"):
            workshop.train("stopped", "--logp", whole["logp"], launcher=TORCHRUN, **SETTINGS)
    shutil.copytree(states, workshop.folder / "kept")

    again = workshop.train("stopped", "--logp", whole["logp"], launcher=TORCHRUN, **SETTINGS)
    assert again["digest"] == whole["digest"]

    shutil.rmtree(states)
    shutil.copytree(workshop.folder / "kept", states)
    alone = workshop.train("alone", "--logp", whole["logp"], **SETTINGS)
    check_histories(alone, whole)
    assert alone["updates"] == 4


@pytest.mark.slow
def test_adapters_train_in_two_processes_as_in_one(workshop, whole):
    options = ("--logp", whole["logp"])
    settings = SETTINGS | {"lora": {"r": 4, "alpha": 8}}
    one = workshop.train("lora_one", *options, **settings)
    two = workshop.train("lora_two", *options, launcher=TORCHRUN, **settings)
    check_same(workshop, one, two, "lora_one", "lora_two", "float32")


@pytest.mark.slow
@pytest.mark.parametrize("launchers", [(TORCHRUN, TORCHRUN), ((), TORCHRUN), (TORCHRUN, ())])
def test_moments_are_carried_on_by_any_number_of_processes(workshop, launchers):
    """Two rounds that carry the moments on equal one round of two epochs."""
    settings = {"objective": "sft", "batch_size": 16, "warmup": 0, "optimizer": "carry", "tokens_per_bin": 64}
    whole = workshop.train("both", "--round", 1, epochs=2, **settings)
    workshop.train("first", "--round", 1, launcher=launchers[0], **settings)
    model = workshop.folder / "first/checkpoint.json"
    second = workshop.train("second", "--round", 2, model=model, launcher=launchers[1], **settings)

    assert second["history"][0]["loss"] == pytest.approx(whole["history"][1]["loss"], rel=1e-4)
    ours, theirs = workshop.model("second").state_dict(), workshop.model("both").state_dict()
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-4, rtol=0, msg=name)


# ---------------------------------------------------------------- publication


@pytest.mark.parametrize(("file_bytes", "files"), [(20_000, 5), (10**9, 1)])
def test_what_is_published_is_what_transformers_would_save(tmp_path, monkeypatch, file_bytes, files):
    monkeypatch.setattr(publishing, "FILE_BYTES", file_bytes)
    model = small_llama(tie_word_embeddings=True)
    model.save_pretrained(tmp_path / "stock")
    expected = read_json(tmp_path / "stock/config.json")

    divided = divided_llama()
    (tmp_path / "ours").mkdir()
    publishing.write_divided(tmp_path / "ours", divided)

    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32).state_dict()
    assert len(list((tmp_path / "ours").glob("*.safetensors"))) == files
    assert read_json(tmp_path / "ours/config.json") == expected
    assert all(torch.equal(saved[name], value) for name, value in model.state_dict().items())


def test_experts_are_published_one_by_one_as_their_models_files_hold_them(tmp_path):
    set_seed(0)
    config = MixtralConfig(
        vocab_size=50, hidden_size=32, intermediate_size=16, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=4,
    )  # fmt: skip
    model = MixtralForCausalLM(config)
    model.save_pretrained(tmp_path / "stock")

    processes.join()
    fsdp.divide(model)
    (tmp_path / "ours").mkdir()
    publishing.write_divided(tmp_path / "ours", model)

    ours, stock = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", "stock"))
    assert "model.layers.0.mlp.experts.3.w1.weight" in stock or len(stock) > 20
    assert ours.keys() == stock.keys()
    assert all(torch.equal(ours[name], stock[name]) for name in stock)


def divided_llama():
    """Return the small Llama with tied weights, divided over this process alone."""
    model = small_llama(tie_word_embeddings=True)
    processes.join()
    fsdp.divide(model, torch.bfloat16)
    return model


MEMORY = """
import resource, sys
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from workflow_scripts.training import fsdp, processes, publishing

processes.join()
torch.set_num_threads(1)
config = LlamaConfig(vocab_size=4000, hidden_size=512, intermediate_size=2048, num_hidden_layers=11,
                     num_attention_heads=8, tie_word_embeddings=False)
if processes.rank():
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
else:
    model = LlamaForCausalLM(config)
fsdp.divide(model)

def peak():
    return 1024 * int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])

Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
before = peak()
publishing.FILE_BYTES = 20_000_000
publishing.write_divided(None if processes.rank() else Path(sys.argv[1]), model)
size = sum(4 * parameter.numel() for parameter in model.parameters())
print(f"rank{processes.rank()} {size} {peak() - before}", flush=True)
processes.leave()
"""


@pytest.mark.long
def test_only_rank_0_takes_memory_for_publication(tmp_path):
    """A rank above 0 takes less than 5 % of the model's bytes; rank 0 takes that of a few files, here of 20 MB."""
    script = tmp_path / "publish.py"
    script.write_text(MEMORY)
    (tmp_path / "model").mkdir()
    command = [sys.executable, "-m", *TORCHRUN[:-1], script, tmp_path / "model"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]

    peaks = {line.split()[0]: list(map(int, line.split()[1:])) for line in done.stdout.splitlines()}
    size, first = peaks["rank0"]
    _, second = peaks["rank1"]
    assert 195e6 < size < 205e6
    assert second < 0.05 * size
    assert first < 0.6 * size
