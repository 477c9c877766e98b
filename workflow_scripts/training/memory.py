"""Predict the memory of an accelerator that training and scoring need. Nothing here touches a device.

The prediction adds up what is held at each moment that can be the peak, on one process. It counts activations for the
arithmetic that this package uses. In bf16, weights are rounded for one layer at a time, activations are bf16, and norms
compute in fp32.
`make bench-gpu` compares the prediction with measurements.
"""

from dataclasses import dataclass
from typing import Any

FILE_BYTES = 5 * 10**9  # of a published file with weights: as much is gathered before it is written
MASTER = 4  # bytes of a weight: fp32
GRADIENT = 4  # bytes of its gradient: fp32
MOMENTS = 8  # bytes of AdamW's two moments: fp32
CHUNK = {"cpu": 2**25, "cuda": 2**28}  # bytes of fp32 logits that the head computes at a time
KEPT = {"cpu": 2**28, "cuda": 2**32}  # bytes of logits that it keeps for the backward pass; the rest is recomputed


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder with gated feed-forward layers, such as Llama and Qwen."""

    hidden: int
    mlp: int
    layers: int
    queries: int  # width of all query heads together
    keys: int  # width of all key heads together
    vocabulary: int
    tied: bool  # the head is the embedding

    @classmethod
    def of(cls, config: Any) -> "Shape":
        """Return the shape in a configuration of transformers."""
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(
            hidden=config.hidden_size,
            mlp=config.intermediate_size,
            layers=config.num_hidden_layers,
            queries=width * config.num_attention_heads,
            keys=width * config.num_key_value_heads,
            vocabulary=config.vocab_size,
            tied=config.tie_word_embeddings,
        )

    @property
    def block(self) -> int:
        """The parameters of a layer's matrices."""
        return 2 * self.hidden * (self.queries + self.keys) + 3 * self.hidden * self.mlp

    @property
    def parameters(self) -> int:
        """The parameters of all matrices. Norms and biases are left out: they are less than a thousandth."""
        return self.layers * self.block + (1 if self.tied else 2) * self.vocabulary * self.hidden


def state_bytes(parameters: float) -> float:
    """Return the bytes of weights, gradients and AdamW's moments of a training without DeepSpeed."""
    return parameters * (MASTER + GRADIENT + MOMENTS)


def layer_activations(shape: Shape, is_bf16: bool, device: str) -> int:
    """Return the bytes per token that one layer keeps for the backward pass."""
    low = 2 if is_bf16 else 4
    norms = 2 * (4 + low) * shape.hidden  # of each norm, its input in fp32 and its normalised input
    inputs = 2 * low * shape.hidden  # of the matrices after each norm
    outputs = 1 if device == "cuda" else 2  # the loop over segments joins its outputs in a copy
    attention = ((1 + outputs) * shape.queries + 2 * shape.keys) * low
    gated = 4 * shape.mlp * low  # gate, its activation, up, and their product
    return norms + inputs + attention + gated


def training_bytes(
    shape: Shape, tokens: int, sampled: int, *, is_bf16: bool, is_checkpointed: bool = False, device: str = "cuda"
) -> float:
    """Return the peak of a training without DeepSpeed whose updates have more than one bin.

    Args:
        tokens: tokens in the largest bin.
        sampled: sampled tokens among them.
        is_bf16: whether the arithmetic is bf16.
        is_checkpointed: whether activations are computed again in the backward pass.
    """
    low = 2 if is_bf16 else 4
    state = state_bytes(shape.parameters)
    layer = layer_activations(shape, is_bf16, device) * tokens
    boundary = low * shape.hidden * tokens  # the residual stream between two layers
    kept = (boundary if is_checkpointed else layer) * shape.layers
    kept += (4 + 2 * low) * shape.hidden * tokens + low * shape.hidden * sampled  # the last norm; what the head reads

    head = shape.vocabulary * shape.hidden
    every = 4 * shape.vocabulary * sampled
    chunk = min(every, CHUNK[device])
    logits = min(every, KEPT[device])
    rounded = 2 * head if is_bf16 else 0  # the head's weight, from the end of the forward pass on
    # A layer's rounded weights and gradients, and its gradients in fp32 before and after they are added over ranks.
    of_layer = (2 + 2 + 4 + 4) * shape.block if is_bf16 else 0

    end_of_forward = state + kept + logits + rounded + chunk
    # The gradient of the head's weight is summed in fp32; in bf16, a product stands beside it.
    of_head = 4 * head + (4 * head + chunk / 2 if is_bf16 else 0)
    begin_of_backward = state + kept + logits + rounded + of_head
    # In bf16 the head's gradient is rounded, and added over ranks in fp32, last, like that of a layer.
    end_of_backward = state + (12 if is_bf16 else 4) * head
    peaks = [end_of_forward, begin_of_backward, end_of_backward]

    if is_checkpointed:
        peaks.append(state + kept + layer + 4 * shape.mlp * low * tokens / 2 + rounded + of_layer)
    return max(peaks)


def scoring_bytes(shape: Shape, tokens: int, sampled: int, *, is_bf16: bool, device: str = "cuda") -> float:
    """Return the peak of scoring: no gradients, and activations of one layer only. For the arguments see training."""
    low = 2 if is_bf16 else 4
    resident = low * shape.parameters

    chunk = min(4 * shape.vocabulary * sampled, CHUNK[device])
    of_head = 2 * chunk + low * shape.hidden * tokens
    of_layer = (3 * 4 * shape.hidden + 3 * low * shape.mlp) * tokens
    return resident + max(of_head, of_layer)
