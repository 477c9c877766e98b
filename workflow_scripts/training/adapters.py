"""LoRA: what is trained in place of all weights."""

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraModel
from transformers import PreTrainedModel

from workflow_scripts.core.records import BadInput
from workflow_scripts.core.sections import Lora

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
