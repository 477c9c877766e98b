"""Tiny random models of the families that people train, and the table in docs/guides/models.md of what they can do.

    python -m tests.training.families         # prints the table

A window has 8 tokens, so that rows of 40 tokens are longer.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

from workflow_scripts.certify import BOUNDS, certify
from workflow_scripts.core.errors import BadInput

LENGTH = 40
SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
HEAD = {"head_dim": 8}
WINDOW = {"sliding_window": 8}
MIXED = {"layer_types": ["sliding_attention", "full_attention"]}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}

# name → (model_type, further values of its config)
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("llama", {}),
    "Qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "Qwen3": ("qwen3", HEAD),
    "Qwen3-MoE": ("qwen3_moe", HEAD | EXPERTS),
    "Mixtral": ("mixtral", EXPERTS),
    "Mistral, with window": ("mistral", WINDOW),
    "Phi-3, with window": ("phi3", WINDOW),
    "Gemma 2": ("gemma2", HEAD | WINDOW | MIXED | {"query_pre_attn_scalar": 8}),
    "Gemma 3": ("gemma3_text", HEAD | WINDOW | MIXED | {"query_pre_attn_scalar": 8}),
    "OLMo 2": ("olmo2", {}),
    "Granite": ("granite", {"logits_scaling": 8.0, "embedding_multiplier": 12.0, "residual_multiplier": 0.22}),
    "Cohere (Command R)": ("cohere", {"logit_scale": 0.0625}),
    "SmolLM 3": ("smollm3", {}),
    "gpt-oss": ("gpt_oss", HEAD | EXPERTS | WINDOW | MIXED),
    "Qwen3-Next": (
        "qwen3_next",
        HEAD
        | EXPERTS
        | {
            "layer_types": ["linear_attention", "full_attention"],
            "shared_expert_intermediate_size": 32,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
        },
    ),
    "Llama 4": ("llama4_text", HEAD | EXPERTS | {"layer_types": ["chunked_attention", "full_attention"]}),
    "Bloom": ("bloom", {"n_layer": 2, "n_head": 4}),
    "OPT": ("opt", {"ffn_dim": 64, "word_embed_proj_dim": 32}),
}


def make(name: str, folder: Path) -> None:
    """Write a tiny random model of a family."""
    kind, values = FAMILIES[name]
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **(SMALL | values))).save_pretrained(folder)


def verdict(name: str, folder: Path) -> str:
    """Return "certified", or the reason why a family's model is refused."""
    make(name, folder)
    try:
        measured = certify(str(folder), LENGTH, "bfloat16")
    except BadInput as error:
        return "refused: " + str(error).removeprefix(f"{folder}: ")

    failed = [f"{check} {measured[check]:.1e}" for check, bound in BOUNDS.items() if not measured[check] <= bound]
    return f"FAILED: {', '.join(failed)}" if failed else "certified"


def table() -> Iterator[str]:
    """Yield the lines of the table in the docs."""
    yield "| family | class of transformers | result |"
    yield "|---|---|---|"

    for name, (kind, values) in FAMILIES.items():
        with tempfile.TemporaryDirectory() as folder:
            result = verdict(name, Path(folder))
        config = AutoConfig.for_model(kind, **(SMALL | values))
        architecture = transformers.AutoModelForCausalLM._model_mapping[type(config)].__name__
        yield f"| {name} | `{architecture}` | {result} |"


if __name__ == "__main__":
    print("\n".join(table()))
