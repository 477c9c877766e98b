"""Attention without padding: each segment of a bin attends only to itself.

Registered with transformers as "segments". A forward pass receives `lengths`, the lengths of the rows in order, and on
CUDA also `cu_seqlens`, their running sum.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from workflow_scripts.core.errors import BadInput

UNSUPPORTED = ("s_aux", "softcap", "position_bias")  # arguments that change attention in ways not covered here


def segment_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    lengths: Sequence[int] = (),
    cu_seqlens: torch.Tensor | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Return causal attention within each segment.

    Args:
        query: [1, H, T, D].
        key: [1, H or fewer, T, D].
        value: as `key`.
        lengths: the lengths of the segments, which sum to T.
        cu_seqlens: [segments + 1], int32, the running sum of `lengths`.

    Returns:
        [1, T, H, D], and None in place of attention weights.

    Raises:
        BadInput: if the model's attention has a feature that packed attention does not cover.
    """
    if used := [name for name in UNSUPPORTED if options.get(name) is not None]:
        raise BadInput(f"this model's attention uses {used[0]}, which packed attention does not support")

    longest = max(lengths)
    if sliding_window is not None and longest > sliding_window:
        raise BadInput(
            f"a row has {longest} tokens, but this model's attention has a sliding window of {sliding_window}, which "
            f"packed attention does not apply: set max_length to {sliding_window} or less"
        )

    dtype = _arithmetic(value)
    if query.is_cuda and dtype in (torch.bfloat16, torch.float16) and cu_seqlens is not None:
        q, k, v = (x[0].transpose(0, 1).to(dtype) for x in (query, key, value))  # [T, H, D]
        is_grouped = key.shape[1] != query.shape[1]
        output = varlen_attn(
            q, k, v, cu_seqlens, cu_seqlens, longest, longest, scale=scaling, window_size=(-1, 0), enable_gqa=is_grouped
        )
        return output[None], None  # type: ignore[index]

    return _by_segment(query, key, value, scaling, lengths), None


def _arithmetic(tensor: torch.Tensor) -> torch.dtype:
    """Return the type that attention computes in.

    Under autocast, rotary embeddings return queries and keys in fp32, while values are of the lower precision.
    """
    device = tensor.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else tensor.dtype


def _by_segment(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None, lengths: Sequence[int]
) -> torch.Tensor:
    """Call attention once per segment. Neighbours of equal length go through one call; bins are sorted by length."""
    runs = [(length, len(list(members))) for length, members in groupby(lengths)]
    sizes = [length * count for length, count in runs]
    is_grouped = key.shape[1] != query.shape[1]
    outputs = []

    for (length, count), *parts in zip(runs, *(x[0].split(sizes, dim=1) for x in (query, key, value))):
        q, k, v = (part.unflatten(1, (count, length)).transpose(0, 1) for part in parts)  # [count, H, length, D]
        output = scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=is_grouped)
        outputs.append(output.transpose(1, 2).flatten(0, 1))  # [count · length, H, D]

    return torch.cat(outputs)[None]


AttentionInterface.register("segments", segment_attention)
