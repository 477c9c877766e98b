"""How much memory of an accelerator training and scoring need, as numbers: nothing here touches a device.

The prediction adds up what is held at the two moments that can be the peak: during the backward pass (weights, gradients,
the optimizer's moments, activations), and during the optimizer's step. Activations are counted for the arithmetic that
this package uses: fp32 weights under autocast, with an fp32 residual stream, norms and rotary embeddings.
`make bench-gpu` compares the prediction with measurements.
"""

from dataclasses import dataclass
from typing import Any

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


def layer_activations(shape: Shape, is_bf16: bool) -> int:
    """Return the bytes per token that one layer keeps for the backward pass."""
    low = 2 if is_bf16 else 4

    residual = 2 * shape.hidden * 4  # the two inputs of norms
    norms = 2 * shape.hidden * 4  # their normalised inputs, before the weights
    normed = 2 * shape.hidden * low  # what the matrices of attention and of the feed-forward layer read
    if not is_bf16:
        normed = 2 * shape.hidden * 4

    attention = (2 * shape.queries + 2 * shape.keys) * low  # queries, keys, values, and what attention returns
    gated = 4 * shape.mlp * low  # gate, its activation, up, and their product
    return residual + norms + normed + attention + gated


def logits_bytes(shape: Shape, sampled: int, device: str) -> int:
    """Return the bytes of logits that the head holds at once in a backward pass."""
    every = 4 * shape.vocabulary * sampled
    chunk = min(every, max(CHUNK[device], 4 * shape.vocabulary))
    return min(every, KEPT[device]) + 2 * chunk


def training_bytes(
    shape: Shape, tokens: int, sampled: int, *, is_bf16: bool, is_checkpointed: bool = False, device: str = "cuda"
) -> float:
    """Return the peak of a training without DeepSpeed.

    Args:
        tokens: tokens in the largest bin.
        sampled: sampled tokens among them.
        is_bf16: whether the arithmetic is bf16.
        is_checkpointed: whether activations are computed again in the backward pass.
    """
    per_layer = layer_activations(shape, is_bf16) * tokens
    if is_checkpointed:
        activations = 4 * shape.hidden * tokens * shape.layers + 2 * per_layer
    else:
        activations = per_layer * shape.layers

    casts = 2 * shape.parameters if is_bf16 else 0  # autocast keeps the weights that it has rounded until the pass ends
    head = logits_bytes(shape, sampled, device) + MASTER * shape.vocabulary * shape.hidden  # its gradient's own buffer
    final = 3 * 4 * shape.hidden * tokens  # what enters and leaves the last norm
    return state_bytes(shape.parameters) + casts + activations + head + final


def scoring_bytes(shape: Shape, tokens: int, sampled: int, *, is_bf16: bool, device: str = "cuda") -> float:
    """Return the peak of scoring: no gradients, and activations of one layer only. For the arguments see training."""
    casts = 2 * shape.parameters if is_bf16 else 0
    per_token = 2 * 4 * shape.hidden + layer_activations(shape, is_bf16)
    chunk = min(4 * shape.vocabulary * sampled, CHUNK[device])
    return MASTER * shape.parameters + casts + per_token * tokens + 2 * chunk
