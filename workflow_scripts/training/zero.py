"""DeepSpeed's ZeRO as the second way to divide a training over processes, with the arithmetic of FSDP2."""

from typing import Any

import torch
import torch.distributed as dist
from transformers.integrations.deepspeed import set_hf_deepspeed_config, unset_hf_deepspeed_config

from workflow_scripts.config.sections import Train
from workflow_scripts.core.pretrained import AutoModelForCausalLM
from workflow_scripts.training import processes


def configuration(settings: Train) -> dict[str, Any] | None:
    """Return the configuration of DeepSpeed.

    In bf16, layers compute with rounded weights. Gradients are added up in fp32, over bins and over ranks.
    """
    chosen = settings.deepspeed
    if chosen is None:
        return None

    zero: dict[str, Any] = {"stage": chosen.stage}
    if chosen.offload:
        zero["offload_optimizer"] = {"device": "cpu"}
    if chosen.offload and chosen.stage == 3:
        zero["offload_param"] = {"device": "cpu"}

    return {
        "zero_optimization": zero,
        "bf16": {"enabled": settings.dtype == "bfloat16"},
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }


def restore(model: Any, folder: str, config: Any, *, has_begun: bool) -> None:
    """Undo the rounding that DeepSpeed does to a model in bf16 when it starts.

    It makes its fp32 masters from rounded weights, so a round would begin from rounded weights and lose the small
    updates of the rounds before it. ZeRO-3 also rounds buffers, such as rotary frequencies.

    Args:
        model: the model that DeepSpeed trains.
        folder: the folder of the checkpoint that training starts from.
        config: DeepSpeed's configuration, as transformers keeps it.
        has_begun: whether the masters come from a saved state of this training, so that only buffers are restored.
    """
    from deepspeed.utils import safe_set_full_fp32_param  # type: ignore[import-not-found]

    exact: dict[str, torch.Tensor] = {}
    if processes.rank() == 0:
        unset_hf_deepspeed_config()  # else ZeRO-3 would divide this model too
        start = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        exact = dict(start.named_parameters()) | dict(start.named_buffers())
        set_hf_deepspeed_config(config)

    for name, buffer in model.named_buffers():
        if buffer.is_floating_point():
            buffer.data = _sent(exact.get(name), buffer.shape)

    if not has_begun:
        for name, parameter in model.named_parameters():
            shape = getattr(parameter, "ds_shape", parameter.shape)
            safe_set_full_fp32_param(parameter, _sent(exact.get(name), shape))


def _sent(tensor: torch.Tensor | None, shape: torch.Size) -> torch.Tensor:
    """Return an fp32 tensor of rank 0 on all ranks."""
    value = torch.empty(shape, dtype=torch.float32, device=processes.device())
    if tensor is not None:
        value.copy_(tensor.detach())
    if processes.count() > 1:
        dist.broadcast(value, src=0)
    return value


def whole_weight(parameter: torch.Tensor) -> torch.Tensor | None:
    """Return a trained fp32 weight, whole and on the CPU, on rank 0, and None on all others. All ranks call this."""
    from deepspeed.utils import safe_get_full_fp32_param  # type: ignore[import-not-found]

    full = safe_get_full_fp32_param(parameter)
    full = parameter if full is None else full  # without ZeRO, in fp32, every rank has all weights
    return None if processes.rank() else full.detach().to("cpu", torch.float32)
