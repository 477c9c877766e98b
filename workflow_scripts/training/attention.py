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
    runs = [(length, len(list(members))) for length, members in groupby(lengths.tolist())]
    sizes = [length * count for length, count in runs]
    grouped, outputs = key.shape[1] != query.shape[1], []
    for (length, count), *pieces in zip(runs, *(x[0].split(sizes, dim=1) for x in (query, key, value))):
        q, k, v = (piece.unflatten(1, (count, length)).transpose(0, 1) for piece in pieces)  # [count, H, length, D]
        out = scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=grouped)
        outputs.append(out.transpose(1, 2).flatten(0, 1))  # [count · length, H, D]
    return torch.cat(outputs)[None], None


AttentionInterface.register("segments", segment_attention)
