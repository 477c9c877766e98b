"""Attention without padding: each segment of a bin attends only to itself.

Registered with transformers as "segments". A forward pass receives `lengths`, the lengths of the rows in order, and on
CUDA also `cu_seqlens`, their running sum. Sliding windows (Mistral, Gemma, gpt-oss) are applied within each segment.
Soft caps of the scores (Gemma 2) and attention sinks (gpt-oss) have no kernel here: their scores are written out, so
memory grows with the square of a row's length.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from workflow_scripts.core.errors import BadInput

UNSUPPORTED = ("position_bias",)  # arguments that change attention in ways not covered here


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
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Return causal attention within each segment.

    Args:
        query: [1, H, T, D].
        key: [1, H or fewer, T, D].
        value: as `key`.
        lengths: the lengths of the segments, which sum to T.
        cu_seqlens: [segments + 1], int32, the running sum of `lengths`.
        sliding_window: a token attends to so many tokens, itself included; None: to all before it.
        softcap: scores s become softcap · tanh(s / softcap).
        s_aux: [H], the score of a further key whose value is zero (an attention sink).

    Returns:
        [1, T, H, D], and None in place of attention weights.

    Raises:
        BadInput: if the model's attention has a feature that packed attention does not cover.
    """
    if used := [name for name in UNSUPPORTED if options.get(name) is not None]:
        raise BadInput(f"this model's attention uses {used[0]}, which packed attention does not support")

    longest = max(lengths)
    window = sliding_window if sliding_window is not None and longest > sliding_window else None
    if softcap is not None or s_aux is not None:
        return _written_out(query, key, value, scaling, lengths, window, softcap, s_aux), None

    dtype = _arithmetic(value)
    if query.is_cuda and dtype in (torch.bfloat16, torch.float16) and cu_seqlens is not None:
        q, k, v = (x[0].transpose(0, 1).to(dtype) for x in (query, key, value))  # [T, H, D]
        before = -1 if window is None else window - 1
        options = {"scale": scaling, "window_size": (before, 0), "enable_gqa": key.shape[1] != query.shape[1]}
        output = varlen_attn(q, k, v, cu_seqlens, cu_seqlens, longest, longest, **options)
        return output[None], None  # type: ignore[index]

    return _by_segment(query, key, value, scaling, lengths, window), None


def _arithmetic(tensor: torch.Tensor) -> torch.dtype:
    """Return the type that attention computes in.

    Under autocast, rotary embeddings return queries and keys in fp32, while values are of the lower precision.
    """
    device = tensor.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else tensor.dtype


def _by_segment(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    lengths: Sequence[int],
    window: int | None = None,
) -> torch.Tensor:
    """Call attention once per segment. Neighbours of equal length go through one call; bins are sorted by length."""
    runs = [(length, len(list(members))) for length, members in groupby(lengths)]
    sizes = [length * count for length, count in runs]
    is_grouped = key.shape[1] != query.shape[1]
    outputs = []

    for (length, count), *parts in zip(runs, *(x[0].split(sizes, dim=1) for x in (query, key, value))):
        q, k, v = (part.unflatten(1, (count, length)).transpose(0, 1) for part in parts)  # [count, H, length, D]
        mask = None if window is None or length <= window else visible(length, window, query.device)
        output = scaled_dot_product_attention(
            q, k, v, mask, is_causal=mask is None, scale=scaling, enable_gqa=is_grouped
        )
        outputs.append(output.transpose(1, 2).flatten(0, 1))  # [count · length, H, D]

    return torch.cat(outputs)[None]


def _written_out(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    lengths: Sequence[int],
    window: int | None,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Return attention from its scores [H, length, length], segment by segment, with soft caps and sinks."""
    group = query.shape[1] // key.shape[1]
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    parts = (query[0], key[0].repeat_interleave(group, 0), value[0].repeat_interleave(group, 0))  # [H, T, D]
    outputs = []

    for q, k, v in zip(*(part.split(list(lengths), dim=1) for part in parts)):
        scores = (q @ k.transpose(1, 2)).float() * scaling
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        scores = scores.masked_fill(~visible(len(q[0]), window, q.device), float("-inf"))
        if sinks is not None:
            sink = sinks.float()[:, None, None].expand(-1, len(q[0]), 1)
            scores = torch.cat([scores, sink], dim=-1)
        weights = scores.softmax(-1)[..., : len(q[0])]
        outputs.append((weights.to(v.dtype) @ v).transpose(0, 1))  # [length, H, D]

    return torch.cat(outputs)[None]


def visible(length: int, window: int | None, device: torch.device) -> torch.Tensor:
    """Return which keys [length] each query [length] sees: those up to itself, at most `window` of them."""
    distance = torch.arange(length, device=device)[:, None] - torch.arange(length, device=device)
    return (distance >= 0) & (distance < (window or length))


AttentionInterface.register("segments", segment_attention)
