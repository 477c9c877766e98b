"""What training and scoring take, and what is predicted for them."""

import json
import re

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks import memory as bench
from tests.harness import REPOSITORY
from tests.training.families import FAMILIES, SMALL
from tests.workshop import Workshop, small_llama
from workflow_scripts import fits
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json
from workflow_scripts.training.memory import Shape, scoring_bytes, training_bytes
from workflow_scripts.training.peaks import StageMemory, shape_of


@pytest.mark.slow
def test_predictions_are_within_a_tenth_of_what_tensors_take_on_one_and_two_processes():
    results = bench.measure(list(bench.SHAPES))
    assert len(results) == 24
    wrong = [result for result in results if bench.error_of(result) > bench.BOUND]
    assert not wrong, wrong


@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_a_prediction_is_within_a_tenth_of_what_tensors_take(is_checkpointed):
    config, budget = bench.config_of("vocabulary"), 256
    rows = bench.full_bins(config.vocab_size, budget, 2)
    measured = bench.peak_on_cpu(lambda: bench.train_once(config, rows, "bfloat16", is_checkpointed, budget))
    sizes = (Shape.of(config), budget, budget // 2)
    predicted = training_bytes(*sizes, is_bf16=True, is_checkpointed=is_checkpointed, device="cpu")
    assert predicted == pytest.approx(measured, rel=bench.BOUND)


def test_more_gpus_never_take_more_of_each():
    shape = fits.PUBLISHED["Llama-3.1-8B"]
    for is_checkpointed in (False, True):
        needed = [
            training_bytes(shape, 8192, 8192, is_bf16=True, is_checkpointed=is_checkpointed, ranks=ranks)
            for ranks in fits.RANKS[1:]
        ]
        assert needed == sorted(needed, reverse=True)
    needed = [scoring_bytes(shape, 8192, 8192, is_bf16=True, ranks=ranks) for ranks in fits.RANKS[1:]]
    assert needed == sorted(needed, reverse=True)


# ---------------------------------------------------------------- kinds of models


@pytest.mark.parametrize("family", FAMILIES)
def test_models_of_other_kinds_are_not_predicted(family):
    kind, values = FAMILIES[family]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **(SMALL | values)))
    is_dense = family.split(",")[0] in ("Llama", "Qwen2", "Qwen3", "Mistral", "Phi-3", "SmolLM 3", "Granite")
    if is_dense:
        assert shape_of(model) == Shape.of(model.config)
    elif family in ("Qwen3-MoE", "Mixtral", "Gemma 2", "gpt-oss", "Qwen3-Next", "Llama 4", "Bloom", "OPT"):
        assert shape_of(model) is None


def test_published_shapes_have_the_parameters_of_their_names():
    for name, shape in fits.PUBLISHED.items():
        billions = float(re.search(r"(\d+)B$", name)[1])  # type: ignore[index]
        assert shape.parameters == pytest.approx(billions * 1e9, rel=0.06)


# ---------------------------------------------------------------- the stages


def test_stages_say_and_keep_what_they_took(tmp_path, capsys):
    workshop = Workshop(tmp_path)
    path = workshop.logp()
    workshop.train("trained", "--logp", path)

    for usage in (path.with_suffix(".usage.json"), tmp_path / "trained/checkpoint.usage.json"):
        host = read_json(usage)["memory"]["host"]
        assert 0 < host["predicted"] <= 2 * host["measured"]
        assert host["measured"] > 10**8
    said = capsys.readouterr().err
    for stage in ("logp", "train"):
        assert re.search(rf"{stage}: memory predicted for a process: host [\d.]+ GiB\n", said)
        assert re.search(rf"{stage}: memory of this process: host [\d.]+ GiB \([\d.]+ predicted\)", said)


def test_a_model_that_is_not_predicted_is_measured(capsys):
    memory = StageMemory("logp")
    model = small_llama()
    model.config.attn_logit_softcapping = 30.0
    memory.predict_scoring(model, [], 1024, "float32")
    assert set(memory.report()["host"]) == {"measured"}
    assert "predicted" not in capsys.readouterr().err


# ---------------------------------------------------------------- the command and its table


def test_the_table_in_the_docs_is_that_of_the_command():
    text = (REPOSITORY / "docs/guides/memory.md").read_text()
    assert "\n".join(fits.table(fits.PUBLISHED, fits.CARDS)) in text


def test_a_models_config_is_enough(tmp_path, monkeypatch, capsys):
    small_llama().config.save_pretrained(tmp_path)
    monkeypatch.setattr("sys.argv", ["fits", "--model", str(tmp_path), "--card", "0.1", "80"])
    fits.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith(f"| {tmp_path} | 80 GB | 128k / 128k / 128k |")
    assert "| 0.1 GB |" in lines[-2]

    changed = json.loads((tmp_path / "config.json").read_text()) | {"model_type": "gemma2"}
    (tmp_path / "config.json").write_text(json.dumps(changed))
    with pytest.raises(BadInput, match="Gemma2ForCausalLM is not predicted"):
        fits.main()
