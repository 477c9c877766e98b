"""Bins, not batches: sequences are packed into forward passes by a plan made once, before training.

The plan follows from lengths, seed, world size and token budget alone. Each update has the same number of bins
on every rank (empty ones allowed), so that gradient accumulation is constant and a resumed run repeats it.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass
class Bin:
    rows: list[int]  # positions in the data, by rising length
    tokens: int  # sampled tokens of the whole update, over all ranks: the loss is divided by it


def pack(rows: Sequence[int], lengths: Sequence[int], budget: int) -> list[list[int]]:
    """First-fit decreasing: rows into the fewest bins of at most `budget` tokens (a longer row stands alone)."""
    bins, room = [], []
    for row in sorted(rows, key=lambda r: (-lengths[r], r)):
        place = next((i for i, free in enumerate(room) if lengths[row] <= free), None)
        if place is None:
            bins.append([row])
            room.append(budget - lengths[row])
        else:
            bins[place].append(row)
            room[place] -= lengths[row]
    return [sorted(members, key=lambda r: (lengths[r], r)) for members in bins]


def plan(
    lengths: Sequence[int],
    sampled: Sequence[int],
    batch_size: int,
    epochs: int,
    budget: int,
    seed: int,
    world: int = 1,
) -> tuple[list[Bin], int]:
    """The bins of all updates, ordered (update, accumulation step, rank), and the accumulation steps per update.

    `lengths` counts all tokens of a row, `sampled` those that are trained on.
    """
    updates = []
    for epoch in range(epochs):
        order = list(range(len(lengths)))
        random.Random(f"{seed}.{epoch}").shuffle(order)
        updates += [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    packed = [pack(rows, lengths, budget) for rows in updates]
    steps = max((-(-len(bins) // world) for bins in packed), default=0)
    result = []
    for rows, bins in zip(updates, packed):
        tokens = sum(sampled[row] for row in rows)
        result += [Bin(members, tokens) for members in bins]
        result += [Bin([], tokens)] * (steps * world - len(bins))
    return result, steps


def collate(rows: Sequence[dict], pad: int) -> dict[str, torch.Tensor]:
    """Pack rows end to end. Shapes: T tokens in the bin, N sampled ones among them, R rows.

    A row has `prompt_tokens`, `tokens` and `mask` (1 = sampled by the policy), and optionally `advantage`,
    `behaviour` (float32 [its sampled tokens], the log-probs under the policy that sampled it) and `foreign`.
    """
    ids, positions, keep, lengths, owner = [], [], [], [], []
    for number, row in enumerate(rows):
        whole = [*row["prompt_tokens"], *row["tokens"]]
        sampled = np.flatnonzero(row["mask"]) + len(row["prompt_tokens"])
        keep.append(sampled + len(ids) - 1)  # the logits that predict a token stand one place before it
        owner += [number] * len(sampled)
        ids += whole
        positions += range(len(whole))
        lengths.append(len(whole))
    if not rows:
        ids, positions, lengths, keep = [pad], [0], [1], [np.zeros(0, dtype=np.int64)]
    kept = torch.from_numpy(np.concatenate(keep).astype(np.int64))
    flat, owner = torch.tensor(ids), torch.tensor(owner, dtype=torch.int64)
    behaviour = [np.asarray(row.get("behaviour", np.zeros(sum(row["mask"]))), np.float32) for row in rows]
    advantage = torch.tensor([float(row.get("advantage", 1.0)) for row in rows])
    foreign = torch.tensor([bool(row.get("foreign", "behaviour" not in row)) for row in rows], dtype=torch.bool)
    return {
        "input_ids": flat[None],  # [1, T]
        "position_ids": torch.tensor(positions)[None],  # [1, T], from 0 in each row
        "lengths": torch.tensor(lengths),  # [R]
        "keep": kept,  # [N] places whose logits are needed
        "targets": flat[kept + 1] if len(kept) else flat[:0],  # [N]
        "row": owner,  # [N] which row a token belongs to
        "behaviour": torch.from_numpy(np.concatenate(behaviour)) if rows else torch.zeros(0),  # [N]
        "advantage": advantage[owner],  # [N]
        "foreign": foreign[owner],  # [N] no ratio may be taken
    }
