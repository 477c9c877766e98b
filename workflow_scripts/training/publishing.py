"""Write a trained model whose weights are divided over ranks, as `from_pretrained` and vLLM load it.

Rank 0 gathers one weight after the other and writes a file whenever enough of them are there. The other ranks only send
their parts, so no rank ever holds the whole model.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from transformers.core_model_loading import revert_weight_conversion

from workflow_scripts.training import fsdp, processes, zero
from workflow_scripts.training.limits import FILE_BYTES


@dataclass
class Weight:
    """A weight to write."""

    shape: torch.Size
    gather: Callable[[], torch.Tensor | None]  # called by all ranks; returns the whole fp32 weight on rank 0

    def empty(self) -> torch.Tensor:
        """Return a tensor of the weight's shape that takes no memory."""
        return torch.empty(self.shape, dtype=torch.float32, device="meta")


def write_divided(folder: Path | None, model: Any) -> None:
    """Write a model into a folder. All ranks must call this; only rank 0 needs a folder."""
    weights = dict(weights_of(model))
    plan = split_torch_state_dict_into_shards(
        {name: weight.empty() for name, weight in weights.items()}, max_shard_size=FILE_BYTES
    )

    if processes.rank() or folder is None:
        for names in plan.filename_to_tensors.values():
            for name in names:
                weights[name].gather()
        return

    if _is_converted(model, weights):
        # The files hold other tensors than the model, such as one per expert, which transformers makes of all weights.
        ordered = [name for names in plan.filename_to_tensors.values() for name in names]
        model.save_pretrained(folder, state_dict={name: weights[name].gather() for name in ordered})
        return

    model.save_pretrained(folder, state_dict={})  # everything but the weights
    for file, names in plan.filename_to_tensors.items():
        tensors = {name: weights[name].gather() for name in names}
        save_file(tensors, folder / file, metadata={"format": "pt"})  # type: ignore[arg-type]

    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (folder / "model.safetensors.index.json").write_text(text)


def _is_converted(model: Any, weights: dict[str, Weight]) -> bool:
    """Return whether the files of this kind of model hold other tensors than the model itself."""
    empty = {name: weight.empty() for name, weight in weights.items()}
    return revert_weight_conversion(model, empty).keys() != weights.keys()


# ---------------------------------------------------------------- the weights


def weights_of(model: Any) -> Iterator[tuple[str, Weight]]:
    """Yield the weights to write, by name. Adapters are added to the weights that they belong to."""
    parameters = dict(model.named_parameters())  # a tied weight once
    adapted = {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}

    for name, parameter in parameters.items():
        owner, is_below_adapters, last = name.partition(".base_layer.")
        if any(name.startswith(f"{adapter}.lora_") for adapter in adapted):
            continue
        if is_below_adapters and last == "weight":
            yield f"{owner}.weight", Weight(_shape(parameter), _merging(parameter, adapted[owner]))
        else:
            plain_name = name.replace(".base_layer.", ".")
            yield plain_name, Weight(_shape(parameter), lambda parameter=parameter: whole(parameter))

    parameters_and_ties = dict(model.named_parameters(remove_duplicate=False))
    for name, buffer in model.state_dict().items():
        if name not in parameters_and_ties:
            yield name, Weight(buffer.shape, lambda buffer=buffer: fsdp.gathered(buffer))


def _shape(parameter: torch.Tensor) -> torch.Size:
    return torch.Size(getattr(parameter, "ds_shape", parameter.shape))  # ZeRO-3 leaves an empty tensor behind


def whole(parameter: torch.Tensor) -> torch.Tensor | None:
    """Return a trained fp32 weight, whole and on the CPU, on rank 0, and None on all others. All ranks call this."""
    if hasattr(parameter, "ds_id") or hasattr(parameter, "_hp_mapping"):  # DeepSpeed's marks
        return zero.whole_weight(parameter)
    return fsdp.gathered(parameter)


def _merging(parameter: torch.Tensor, module: Any) -> Callable[[], torch.Tensor | None]:
    """Return a function that gathers a weight and adds its adapters."""

    def gather() -> torch.Tensor | None:
        weight = whole(parameter)
        for name in module.active_adapters:
            first = whole(module.lora_A[name].weight)
            second = whole(module.lora_B[name].weight)
            if weight is not None and first is not None and second is not None:
                change = module.scaling[name] * (second @ first)
                weight = weight + (change.T if module.fan_in_fan_out else change)
        return weight

    return gather
