"""LoRA: adapters are trained in place of all weights."""

from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraModel
from transformers import BitsAndBytesConfig
from transformers.utils.import_utils import is_bitsandbytes_available

from workflow_scripts.config.sections import Lora
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.pretrained import AutoModelForCausalLM
from workflow_scripts.training import processes

NAME = "default"


def add_adapters(model: Any, settings: Lora, seed: int) -> LoraModel:
    """Put adapters into a model, in place, and freeze everything else.

    The adapters change nothing yet, because one of their factors is 0. `merge_and_unload()` of what is returned gives a
    plain model again, with the adapters added to its weights.
    """
    torch.manual_seed(seed)  # for the other factor
    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]
        lora_dropout=settings.dropout,
        target_modules=settings.targets,
    )

    try:
        adapters = LoraModel(model, config, NAME)
    except ValueError as error:  # layers that do not exist, or are not linear
        raise BadInput(f"train.lora.targets: {error}") from None

    model.enable_input_require_grads()  # else checkpointed blocks would see nothing to train
    return adapters


def load_options(dtype: str) -> dict[str, Any]:
    """Return how the weights below the adapters are loaded in 4 bits."""
    # transformers.Trainer does not move a quantized model to its device.
    return {"quantization_config": four_bits(dtype), "device_map": {"": processes.device()}}


def four_bits(dtype: str) -> BitsAndBytesConfig:
    """Return how QLoRA holds weights: 4-bit NormalFloat with quantized scales; `dtype` is that of the arithmetic."""
    if not is_bitsandbytes_available():
        raise BadInput("train.lora.bits: 4 needs the package bitsandbytes (envs/qlora.txt), which is not installed")

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )


def move_adapters(adapters: LoraModel, folder: str, settings: Lora) -> LoraModel:
    """Return the same adapters in the model of `folder` with full weights; merged in 4 bits they would be rounded."""
    full = add_adapters(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), settings, 0)
    factors = {name: value.cpu() for name, value in adapters.state_dict().items() if "lora_" in name}
    result = full.load_state_dict(factors, strict=False)
    assert factors and not result.unexpected_keys
    return full
