"""Predict the memory of an accelerator that training and scoring need. Nothing here touches a device.

The prediction adds up what tensors take on one process at each moment that can be the peak. It counts activations for
the arithmetic that this package uses. In bf16, weights are rounded for one layer at a time, activations are bf16, and
norms compute in fp32. FSDP2 divides weights, gradients and moments over the processes and gathers a layer while it
computes. `python -m benchmarks.memory` (on a CPU) and `make bench-gpu` compare the prediction with measurements.

DeepSpeed, adapters and mixtures of experts are not predicted.
"""

from dataclasses import dataclass
from typing import Any

from workflow_scripts.training.limits import CHUNK, KEPT

MASTER = 4  # bytes of a weight: fp32
GRADIENT = 4  # bytes of its gradient: fp32
MOMENTS = 8  # bytes of AdamW's two moments: fp32


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
    def head(self) -> int:
        """The parameters of the head, which are as many as those of the embedding."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """The parameters of all matrices. Norms and biases are left out: they are less than a thousandth."""
        return self.layers * self.block + (1 if self.tied else 2) * self.head


def state_bytes(parameters: float) -> float:
    """Return the bytes of weights, gradients and AdamW's moments over all processes, without DeepSpeed."""
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
    shape: Shape,
    tokens: int,
    sampled: int,
    *,
    is_bf16: bool,
    is_checkpointed: bool = False,
    ranks: int = 1,
    device: str = "cuda",
) -> float:
    """Return the peak of a training without DeepSpeed whose updates have more than one bin per process.

    Args:
        tokens: tokens in the largest bin.
        sampled: sampled tokens among them.
        is_bf16: whether the arithmetic is bf16.
        is_checkpointed: whether activations are computed again in the backward pass.
        ranks: processes, with an accelerator each, that the model is divided over.
    """
    low = 2 if is_bf16 else 4
    state = state_bytes(shape.parameters) / ranks

    layer = layer_activations(shape, is_bf16, device) * tokens
    boundary = low * shape.hidden * tokens  # the residual stream between two layers
    kept = (boundary if is_checkpointed else layer) * shape.layers
    kept += (4 + 2 * low) * shape.hidden * tokens + low * shape.hidden * sampled  # the last norm; what the head reads
    inside = (layer if is_checkpointed else 0) + 2 * shape.mlp * low * tokens  # of a layer in the backward pass

    every = 4 * shape.vocabulary * sampled
    chunk = min(every, CHUNK[device])
    logits = min(every, KEPT[device])
    # The gradient of the head's weight is summed in fp32; in bf16, a product stands beside it.
    of_head = 4 * shape.head + (4 * shape.head + chunk / 2 if is_bf16 else 0)

    held = Gathered.of(shape, is_bf16, ranks)
    moments = {
        "end of the forward pass": kept + logits + chunk + held.forward,
        "begin of the backward pass": kept + logits + of_head + held.head_backward,
        "a layer's backward pass": (kept + inside if is_checkpointed or ranks > 1 else 0) + held.layer_backward,
        "end of the backward pass": held.end,
    }
    return state + max(moments.values())


@dataclass(frozen=True)
class Gathered:
    """Bytes of weights and gradients that a process holds whole while it computes, beyond its part of the state."""

    forward: float  # when the head computes
    head_backward: float  # when the head's gradient is computed, without that gradient
    layer_backward: float
    end: float  # when the gradients of embedding and head are added over processes

    @classmethod
    def of(cls, shape: Shape, is_bf16: bool, ranks: int) -> "Gathered":
        """Return what FSDP2 gathers. It divides the model over several processes, and rounds it for one in bf16."""
        if not is_bf16 and ranks == 1:
            return cls(0, 0, 0, 4 * shape.head)

        low = 2 if is_bf16 else 4
        weights = low * shape.block
        head = low * shape.head  # whole from the forward to the end of the backward pass, and so is its gradient
        arriving = weights if ranks > 1 else 0  # the weights of the next layer, in the buffer that they arrive in
        waiting = 4 * shape.block if ranks > 1 else 0  # fp32 gradients of the layer before, while they are added

        # A layer's gradients are rounded as its weights are. They become fp32 when they are added over processes.
        computing = weights + max(weights, waiting) if ranks > 1 else 2 * weights
        adding = (4 + 4 / ranks) * shape.block
        layer = 2 * head + arriving + weights + (max(computing, adding) if ranks > 1 else weights + adding)

        embedding = 0 if shape.tied else head
        end = 2 * head + embedding + (low + 4 + 4 / ranks) * shape.head
        return cls(head + 2 * arriving, head + arriving, layer, end)


def scoring_bytes(
    shape: Shape, tokens: int, sampled: int, *, is_bf16: bool, ranks: int = 1, device: str = "cuda"
) -> float:
    """Return the peak of scoring: no gradients, and activations of one layer only. For the arguments see training."""
    low = 2 if is_bf16 else 4
    resident = low * shape.parameters / ranks
    is_divided = ranks > 1

    # FSDP2 holds the head whole, and a layer twice: as it arrives, and as it is used.
    whole_head = low * shape.head if is_divided else 0
    arriving = 2 * low * shape.block if is_divided else 0

    chunk = min(4 * shape.vocabulary * sampled, CHUNK[device])
    of_head = 2 * chunk + low * shape.hidden * tokens
    of_layer = (3 * 4 * shape.hidden + 3 * low * shape.mlp) * tokens
    of_embedding = 0 if shape.tied or not is_divided else 2 * low * shape.head
    return resident + whole_head + max(arriving + of_head, arriving + of_layer, of_embedding)
