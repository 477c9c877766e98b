"""Attention without padding: each segment of a bin attends to itself alone.

Registered with transformers as "segments"; a forward pass is given `lengths`, the rows' lengths in order, and on
CUDA also `cu_seqlens`, their running sum.
"""

from itertools import groupby

import torch
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from workflow_scripts.core.errors import BadInput


def segment_attention(
    module, query, key, value, attention_mask, scaling=None, dropout=0.0, lengths=None, cu_seqlens=None,
    sliding_window=None, **unknown,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """query [1, H, T, D], key and value [1, H or fewer, T, D] → [1, T, H, D]; causal within each segment."""
    if given := [name for name in ("s_aux", "softcap", "position_bias") if unknown.get(name) is not None]:
        raise BadInput(f"this model's attention uses {given[0]}, which packed attention does not know")
    longest = max(lengths)
    if sliding_window is not None and longest > sliding_window:
        raise BadInput(
            f"a row has {longest} tokens, but this model's attention has a sliding window of {sliding_window}, which "
            f"packed attention does not cut: set max_length to {sliding_window} or less"
        )
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16):
        q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # [T, H, D]
        grouped = key.shape[1] != query.shape[1]
        out = varlen_attn(
            q, k, v, cu_seqlens, cu_seqlens, longest, longest, scale=scaling, window_size=(-1, 0), enable_gqa=grouped
        )
        return out[None], None
    return _by_segment(query, key, value, scaling, lengths), None


def _by_segment(query, key, value, scaling, lengths) -> torch.Tensor:
    """One call per segment; neighbours of equal length (bins are sorted by length) go through one call."""
    runs = [(length, len(list(members))) for length, members in groupby(lengths)]
    sizes = [length * count for length, count in runs]
    grouped, outputs = key.shape[1] != query.shape[1], []
    for (length, count), *pieces in zip(runs, *(x[0].split(sizes, dim=1) for x in (query, key, value))):
        q, k, v = (piece.unflatten(1, (count, length)).transpose(0, 1) for piece in pieces)  # [count, H, length, D]
        out = scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=grouped)
        outputs.append(out.transpose(1, 2).flatten(0, 1))  # [count · length, H, D]
    return torch.cat(outputs)[None]


AttentionInterface.register("segments", segment_attention)
