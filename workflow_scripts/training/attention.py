"""Attention without padding: each segment of a bin attends to itself alone.

Registered with transformers as "segments"; a forward pass is given `lengths` [R], the rows' lengths in order.
Neighbours of equal length (bins are sorted by length) go through one call.
"""

from itertools import groupby

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface


def segment_attention(
    module, query, key, value, attention_mask, scaling=None, dropout=0.0, lengths=None, **_
) -> tuple[torch.Tensor, None]:
    """query [1, H, T, D], key and value [1, H or fewer, T, D] → [1, T, H, D]."""
    outputs, start = [], 0
    for length, members in groupby(lengths.tolist()):
        count = len(list(members))
        piece = slice(start, start + count * length)
        q, k, v = (x[0, :, piece].unflatten(1, (count, length)).transpose(0, 1) for x in (query, key, value))
        grouped = k.shape[1] != q.shape[1]
        out = scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=grouped)
        outputs.append(out.transpose(1, 2).flatten(0, 1))  # [count · length, H, D]
        start = piece.stop
    return torch.cat(outputs)[None], None


AttentionInterface.register("segments", segment_attention)
