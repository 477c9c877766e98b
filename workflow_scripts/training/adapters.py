"""LoRA: what is trained in place of all weights."""

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraModel
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.utils import is_bitsandbytes_available

from workflow_scripts.core.pretrained import AutoModelForCausalLM
from workflow_scripts.core.errors import BadInput
from workflow_scripts.config.sections import Lora, Train
from workflow_scripts.training.logps import load_policy

NAME = "default"


def adapted(model: PreTrainedModel, settings: Lora, seed: int) -> LoraModel:
    """Put adapters into the model, in place, and freeze all else. They change nothing yet: one factor is 0.
    `merge_and_unload()` of what is returned gives a plain model again, with the adapters added to its weights."""
    torch.manual_seed(seed)  # of the other factor
    config = LoraConfig(
        r=settings.r, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=settings.targets
    )
    try:
        adapters = LoraModel(model, config, NAME)
    except ValueError as error:  # layers that are not there, or not linear
        raise BadInput(f"train.lora.targets: {error}") from None
    model.enable_input_require_grads()  # else checkpointed blocks would see nothing to train
    return adapters


def load_adapted(folder: str, settings: Train, seed: int, device: torch.device) -> tuple[PreTrainedModel, LoraModel]:
    """The policy in `folder` with adapters in it, and the adapters; its weights in 4 bits if `lora.bits` says so."""
    options = {}
    if settings.lora.bits:  # transformers.Trainer moves no quantized model to its device
        options = {"quantization_config": four_bits(settings.dtype), "device_map": {"": device}}
    policy = load_policy(folder, "float32", **options)
    return policy, adapted(policy, settings.lora, seed)


def four_bits(dtype: str) -> BitsAndBytesConfig:
    """How QLoRA holds the weights: NormalFloat of 4 bits, its scales quantized too; computed with in `dtype`."""
    if not is_bitsandbytes_available():
        raise BadInput("train.lora.bits: 4 needs the package bitsandbytes (envs/qlora.txt), which is not installed")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )


def moved(adapters: LoraModel, folder: str, settings: Lora) -> LoraModel:
    """The same adapters in the model of `folder` in its whole weights: merged in 4 bits, they would be rounded off."""
    whole = adapted(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), settings, 0)
    factors = {name: value.cpu() for name, value in adapters.state_dict().items() if "lora_" in name}
    missing = whole.load_state_dict(factors, strict=False)
    assert factors and not missing.unexpected_keys
    return whole
