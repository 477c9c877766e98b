"""Count the floating point operations that the work needs, and those that the machine can do.

The work needs: all tokens through the matrices of the body, sampled tokens through the head, and causal attention. A
multiply and an add are two operations. A backward pass needs twice the forward pass. Padding, prompts through the head
and anything computed twice are not needed, so they lower the share that `mfu` reports (PaLM, arXiv 2204.02311,
appendix B).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch

# Dense bf16 operations per second, by a part of the device's name.
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "B200": 2250e12, "L40S": 362e12}


def forward_flops(model: Any, lengths: Sequence[int], sampled: int) -> float:
    """Return the operations of one forward pass over rows of `lengths` tokens, `sampled` of which need the head."""
    config = model.config
    head = model.get_output_embeddings().weight
    embedding = model.get_input_embeddings().weight

    shapes = [_shape(p) for p in model.get_decoder().parameters() if p is not embedding]
    body = sum(math.prod(shape) for shape in shapes if len(shape) == 2)

    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    attention = 2 * config.num_hidden_layers * width * sum(n * (n + 1) for n in lengths)  # half of the square

    return 2.0 * body * sum(lengths) + attention + 2.0 * math.prod(_shape(head)) * sampled


def _shape(parameter: torch.nn.Parameter) -> Sequence[int]:
    return getattr(parameter, "ds_shape", parameter.shape)  # ZeRO-3 leaves an empty tensor behind


def peak_flops() -> float | None:
    """Return the operations per second of one of this machine's accelerators, if they are known."""
    if not torch.cuda.is_available():
        return None

    name = torch.cuda.get_device_name()
    return next((peak for part, peak in PEAKS.items() if part in name), None)
