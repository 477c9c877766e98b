"""Divide a model over the processes of a job with FSDP2: each rank holds a part of every weight.

A layer is whole on a rank only while it computes. In bf16 it computes with rounded weights, while the parts that ranks
hold, their gradients, the sums of gradients over ranks and the optimizer are fp32. On one rank FSDP2 gives the same
arithmetic: the part is the whole weight.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from workflow_scripts.config.sections import Train
from workflow_scripts.training import processes


def is_divided(settings: Train) -> bool:
    """Return whether FSDP2 holds the weights of this training.

    It does so on several processes, and in bf16 also on one. Weights in 4 bits cannot be divided.
    """
    if settings.deepspeed or (settings.lora and settings.lora.bits):
        return False
    return processes.count() > 1 or settings.dtype == "bfloat16"


# ---------------------------------------------------------------- dividing


def divide(model: Any, dtype: torch.dtype | None = None) -> None:
    """Divide a model over all ranks, in place.

    Rank 0 has the model with its weights, and all others have it on the meta device. Modules are sent and divided one
    by one, so no rank but the first ever holds more than one whole layer.

    Args:
        model: a model of transformers.
        dtype: what layers compute in; None for the type of the weights.
    """
    device = processes.device()
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32) if dtype else MixedPrecisionPolicy()

    embedding = model.get_input_embeddings()
    is_tied = embedding.weight is model.get_output_embeddings().weight
    for module in [*layers(model), *([] if is_tied else [embedding]), model]:
        _send(module, model, device)
        fully_shard(module, mesh=mesh, mp_policy=policy)


def layers(model: Any) -> list[torch.nn.Module]:
    """Return the decoder layers, which transformers names as the modules that must not be split."""
    names = set(model._no_split_modules or ())
    return [module for module in model.modules() if type(module).__name__ in names]


def _send(module: torch.nn.Module, model: Any, device: torch.device) -> None:
    """Send what is not yet divided in a module from rank 0 to all ranks."""
    divided = {inner for part in module.modules() if isinstance(part, FSDPModule) for inner in part.modules()}
    remaining = [part for part in module.modules() if part not in divided]

    for part in remaining:
        if dist.get_rank():
            part.to_empty(device=device, recurse=False)
        else:
            _move(part, device)
    if module is model:
        model.tie_weights()  # a tied weight was moved once for each of its modules

    tensors = [tensor for part in remaining for tensor in _own_tensors(part)]
    for tensor in dict.fromkeys(tensors):
        dist.broadcast(tensor.detach(), src=0)


def _move(part: torch.nn.Module, device: torch.device) -> None:
    """Move the parameters and buffers of a module, without those of the modules within it."""
    part._apply(lambda tensor: tensor.to(device), recurse=False)


def _own_tensors(part: torch.nn.Module) -> Iterator[torch.Tensor]:
    yield from part.parameters(recurse=False)
    yield from part.buffers(recurse=False)


# ---------------------------------------------------------------- gathering


def gathered(tensor: torch.Tensor) -> torch.Tensor | None:
    """Return a tensor that may be divided, whole and on the CPU, on rank 0, and None on all others.

    All ranks must call this. A rank above 0 holds nothing but its part.
    """
    tensor = tensor.detach()
    is_first = not (dist.is_initialized() and dist.get_rank())
    if not isinstance(tensor, DTensor):
        return tensor.cpu() if is_first else None

    world = dist.get_world_size()
    rows = -(-tensor.shape[0] // world)  # of all parts but the last ones, which may have fewer
    part = tensor.to_local()
    if len(part) < rows:
        part = torch.cat([part, part.new_zeros(rows - len(part), *tensor.shape[1:])])

    parts = [torch.empty_like(part) for _ in range(world)] if is_first else None
    dist.gather(part.contiguous(), parts, dst=0)
    return torch.cat([received.cpu() for received in parts])[: tensor.shape[0]] if parts else None
