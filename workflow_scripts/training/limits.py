"""Sizes that bound what is held in memory at a time."""

FILE_BYTES = 5 * 10**9  # of a published file with weights: as much is gathered before it is written
CHUNK = {"cpu": 2**25, "cuda": 2**28}  # bytes of fp32 logits that the head computes at a time
KEPT = {"cpu": 2**28, "cuda": 2**32}  # bytes of logits that it keeps for the backward pass; the rest is recomputed
