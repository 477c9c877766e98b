"""The stand-in of a model: its architecture, tokenizer and template, without its weights."""

import json

import pytest

from tests.workshop import Workshop
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.pretrained import AutoConfig, AutoTokenizer
from workflow_scripts.rehearsal import stand_in
from workflow_scripts.rehearsal.checks import chat
from workflow_scripts.rehearsal.families import description_of

TEXT = "She has 12 apples,\n  and `print(3 * 4)` tells it."
RECIPES = {
    "deepseek-ai/deepseek-math-7b-base": "LlamaForCausalLM",
    "Qwen/Qwen2.5-7B": "Qwen2ForCausalLM",
    "Qwen/Qwen2.5-Coder-7B-Instruct": "Qwen2ForCausalLM",
    "meta-llama/Meta-Llama-3.1-8B-Instruct": "LlamaForCausalLM",
    "meta-llama/Llama-3.2-3B-Instruct": "LlamaForCausalLM",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a function that makes the stand-in of a described model in a folder."""
    folder = tmp_path_factory.mktemp("models")
    finished = {}

    def make(name):
        if name not in finished:
            description = description_of(name)
            tokenizer = stand_in.make_tokenizer(description, [TEXT] * 5)
            ends = tokenizer.convert_tokens_to_ids(description["ends"])
            path = folder / name.replace("/", "--")
            model = stand_in.make_model(description["config"], ends, tokenizer, 0)
            model.save_pretrained(path)
            stand_in.save_tokenizer(tokenizer, description, path)
            finished[name] = (path, model)
        return finished[name]

    return make


@pytest.mark.parametrize("name", RECIPES)
def test_a_described_model_has_class_window_and_tokenizer(made, name):
    path, model = made(name)
    description = description_of(name)
    config = AutoConfig.from_pretrained(path)

    assert type(model).__name__ == RECIPES[name]
    assert sum(parameter.numel() for parameter in model.parameters()) < 1_000_000
    assert config.max_position_embeddings == description["config"]["max_position_embeddings"]
    assert config.tie_word_embeddings == description["config"]["tie_word_embeddings"]
    assert config.rope_parameters["rope_type"] == description["config"]["rope_parameters"]["rope_type"]
    has_groups = description["config"]["num_key_value_heads"] < description["config"]["num_attention_heads"]
    assert (config.num_key_value_heads < config.num_attention_heads) == has_groups

    tokenizer = AutoTokenizer.from_pretrained(path)
    assert tokenizer.eos_token == description["tokenizer"]["eos_token"]
    assert tokenizer.decode(tokenizer.encode(TEXT, add_special_tokens=False)) == TEXT
    assert not list(chat.lossless(tokenizer))
    template = "chat" if description.get("chat_template") else "deepseek"
    assert "fail" not in [fault.grade for fault in chat.template_faults(tokenizer, template)]


def test_the_base_model_ends_otherwise_than_its_template(made):
    path, model = made("Qwen/Qwen2.5-7B")
    tokenizer = AutoTokenizer.from_pretrained(path)
    ends = [model.generation_config.eos_token_id]
    assert [fault.grade for fault in chat.ends_of_answers(tokenizer, "chat", ends)] == ["waste"]


def test_the_most_specific_description_is_taken():
    assert description_of("Qwen/Qwen2.5-7B-Instruct")["tokenizer"]["eos_token"] == "<|im_end|>"
    assert description_of("Qwen/Qwen2.5-0.5B")["config"]["tie_word_embeddings"]
    with pytest.raises(BadInput, match="no description of it"):
        description_of("nobody/unknown-7B")


def test_byte_level_tokenizers_of_class_llama_keep_white_space(made):
    path, _ = made("deepseek-ai/deepseek-math-7b-base")
    assert json.loads((path / "tokenizer_config.json").read_text())["tokenizer_class"] == "LlamaTokenizerFast"
    tokenizer = AutoTokenizer.from_pretrained(path)
    assert tokenizer.decode(tokenizer.encode("two  words\n", add_special_tokens=False)) == "two  words\n"


def test_a_local_model_gives_its_own_tokenizer(tmp_path):
    workshop = Workshop(tmp_path)
    source = tmp_path / "start/model"
    output = tmp_path / "init/checkpoint.json"
    workshop.run(stand_in, "--settings", json.dumps({"path": str(source)}), "--output", output)

    assert (output.parent / "model/tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    assert AutoConfig.from_pretrained(output.parent / "model").max_position_embeddings == 256


def test_every_kind_of_layer_stays():
    values = {
        "model_type": "gemma3_text",
        "hidden_size": 1152,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "layer_types": ["sliding_attention"] * 5 + ["full_attention"],
        "sliding_window": 512,
    }
    small = stand_in.small_config(values)
    assert small["layer_types"] == ["sliding_attention", "full_attention"]
    assert (small["num_hidden_layers"], small["sliding_window"], small["head_dim"]) == (2, 512, stand_in.HEAD)
