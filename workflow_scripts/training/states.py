"""The saved states of an unfinished training: weights and moments, in parts that any number of processes can load."""

import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    get_state_dict,
    set_optimizer_state_dict,
    set_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load as load_parts
from torch.distributed.checkpoint.state_dict_saver import save as save_parts
from torch.distributed.tensor import DTensor, distribute_tensor

FOLDER = "state"  # within a saved state of the trainer
TRAINED = StateDictOptions(ignore_frozen_params=True, strict=False)  # frozen weights are those that training began with


def save(folder: str | Path, model: Any, optimizer: Any) -> None:
    """Save the trained weights and the optimizer's moments. Each process writes what it holds."""
    weights, moments = get_state_dict(model, optimizer, options=TRAINED)
    state = {"model": weights, "optimizer": moments}
    save_parts(state, checkpoint_id=Path(folder) / FOLDER, no_dist=not dist.is_initialized())


def load(folder: str | Path, model: Any, optimizer: Any) -> None:
    """Load what `save` wrote, in place. The number of processes may have changed since."""
    weights, moments = get_state_dict(model, optimizer, options=TRAINED)
    state = {"model": weights, "optimizer": moments}
    load_parts(state, checkpoint_id=Path(folder) / FOLDER, no_dist=not dist.is_initialized())
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=moments, options=TRAINED)


def save_moments(path: Path, model: Any, optimizer: Any) -> None:
    """Save the optimizer's moments for the next round, into a folder. Each process writes what it holds."""
    moments = get_optimizer_state_dict(model, optimizer)
    save_parts({"state": moments["state"]}, checkpoint_id=path, no_dist=not dist.is_initialized())


def load_moments(path: Path, model: Any, optimizer: Any) -> None:
    """Load the moments of the round before, in place: from a folder, or from the file of a process alone."""
    if path.is_dir():
        moments = get_optimizer_state_dict(model, optimizer)
        state = {"state": moments["state"]}
        load_parts(state, checkpoint_id=path, no_dist=not dist.is_initialized())
        set_optimizer_state_dict(model, optimizer, {**moments, **state})
        return

    state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    parts = {
        number: {name: _part(value, parameters[number]) for name, value in values.items()}
        for number, values in state.items()
    }
    optimizer.load_state_dict(optimizer.state_dict() | {"state": parts})


def _part(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """Return the part of a moment that this process holds, as it holds the parameter."""
    if not isinstance(parameter, DTensor) or value.shape != parameter.shape:
        return value
    return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)


def flush(folder: Path) -> None:
    """Bring all files below a folder to the disk, so that a power failure loses none of them."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
