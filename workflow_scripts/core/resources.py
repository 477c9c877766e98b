"""What each stage asks of a scheduler: memory and time, from what the config says of the model, with room to spare.

Figures are per node and for the first attempt; rules add half of it for each further one. Time need not be enough: long
stages save before it is up and go on in the next attempt. Another opinion: `--set-resources train:runtime=600`.
"""

import json
import math
from pathlib import Path

from workflow_scripts.core.config import Config
from workflow_scripts.core.sections import Model, Train

PROCESS = 4000  # MB that a process has before its first weight: Python, torch, the host's side of CUDA
DAY = 1440  # minutes
BYTES = {"float32": 4, "bfloat16": 2}


def parameters(model: Model) -> float:
    """How many parameters the model has; ValueError where only its maker knows."""
    if (made := model.scratch) is not None:
        block = 4 * made.width**2 + 3 * made.width * made.mlp_width
        return made.layers * block + made.vocabulary * made.width
    if model.parameters:
        return model.parameters
    stored = sorted(Path(model.path).glob("*.safetensors")) if Path(model.path).is_dir() else []
    if not stored:
        raise ValueError(
            f"model.parameters: {model.path} is no folder here with weights in .safetensors files. Say how many "
            "parameters the model has, such as `parameters: 7e9`: memory and time asked of a cluster follow from it"
        )
    return sum(map(_stored, stored))


def _stored(path: Path) -> int:
    """Numbers in a .safetensors file, by its header."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


def of_model(cfg: Config) -> dict[str, int]:
    """Of the stage that fetches or makes the model: it passes through memory once."""
    weights = _weights(cfg)
    return _asked(PROCESS + 2 * weights, 60 + 20 * _billions(cfg))


def of_merge(cfg: Config) -> dict[str, int]:
    """Of two models in fp32 and what they become."""
    return _asked(PROCESS + 3 * _weights(cfg), 60 + 20 * _billions(cfg))


def of_generation(cfg: Config) -> dict[str, int]:
    """Of a shard's answers, in whichever version: the weights pass through memory on their way to the GPUs."""
    generate = cfg.generate
    versions = [name for name in ("auto", "trigger", "eval", "pool") if name != "pool" or cfg.selection]
    tokens = max(getattr(generate, name).max_tokens for name in versions if getattr(generate, name))
    gpus, split = max(1, generate.gpus), generate.tensor_parallel or generate.gpus or 1
    copies = gpus if "transformers" in map(generate.engine_of, versions) else max(1, gpus // split)
    memory = PROCESS * gpus + 1.2 * copies * _weights(cfg) * BYTES[generate.dtype] / 4
    return _asked(memory, 60 + 30 * _billions(cfg) * tokens / 1024)


def of_scoring(cfg: Config) -> dict[str, int]:
    """Of a shard's log-probs: each copy loads fp32 weights, whole."""
    return _asked(max(1, cfg.logp.gpus) * (PROCESS + _weights(cfg)), 60 + 10 * _billions(cfg))


def of_training(cfg: Config, train: Train) -> dict[str, int]:
    """Of one node: weights pass through memory, are gathered to be saved, and moments may be offloaded to it."""
    weights, zero = _weights(cfg), train.deepspeed
    loaded = 1 if zero and zero.stage == 3 else train.processes
    offloaded = 4 * weights / train.nodes if zero and zero.offload else 0
    on_cpu = 4 * weights  # gradients, moments and activations of small models, where there is no GPU
    memory = train.processes * PROCESS + (loaded + 1) * weights + max(offloaded, on_cpu if weights < PROCESS else 0)
    return _asked(memory, 60 + 60 * _billions(cfg))


def _weights(cfg: Config) -> float:
    """MB of the fp32 weights."""
    return parameters(cfg.model) * 4 / 1e6


def _billions(cfg: Config) -> float:
    return parameters(cfg.model) / 1e9


def _asked(memory: float, minutes: float) -> dict[str, int]:
    return {"mem_mb": round(memory), "runtime": round(minutes)}
