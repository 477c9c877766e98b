"""Bins, not batches: sequences are packed into forward passes by a plan made once, before training.

The plan follows from lengths, seed, world size and token budget alone. Each update has the same number of bins
on every rank (empty ones allowed), so that gradient accumulation is constant and a resumed run repeats it.
"""

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from workflow_scripts.core.errors import BadInput
from workflow_scripts.config.sections import Train


@dataclass
class Bin:
    units: list[int]  # positions in the list of units, by rising length
    update: list[int]  # positions of all units of the update, over all ranks


def units_of(rows: Sequence[dict]) -> list[list[int]]:
    """What must stay in one bin: a row, or the two rows of a preference pair (neighbours of equal `pair`)."""
    units: list[list[int]] = []
    for number, row in enumerate(rows):
        last = rows[units[-1][0]] if units and len(units[-1]) == 1 else {}
        if row.get("pair") is not None and last.get("pair") == row["pair"]:
            units[-1].append(number)
        else:
            units.append([number])
    return units


def pack(units: Sequence[int], lengths: Sequence[int], budget: int) -> list[list[int]]:
    """First-fit decreasing: units into the fewest bins of at most `budget` tokens (a longer one stands alone)."""
    bins, room = [], []
    for unit in sorted(units, key=lambda u: (-lengths[u], u)):
        place = next((i for i, free in enumerate(room) if lengths[unit] <= free), None)
        if place is None:
            bins.append([unit])
            room.append(budget - lengths[unit])
        else:
            bins[place].append(unit)
            room[place] -= lengths[unit]
    return [sorted(members, key=lambda u: (lengths[u], u)) for members in bins]


def plan(
    lengths: Sequence[int], batch_size: int, epochs: int, budget: int, seed: int, world: int = 1, updates: int = 0
) -> tuple[list[Bin], int]:
    """The bins of all updates, ordered (update, accumulation step, rank), and the accumulation steps per update.

    `lengths` counts all tokens of a unit. `updates` > 0 shares the data of all epochs out among exactly that many
    updates, in place of updates of `batch_size` units.
    """
    passes = []
    for epoch in range(epochs):
        passes.append(list(range(len(lengths))))
        random.Random(f"{seed}.{epoch}").shuffle(passes[-1])
    if updates:
        chosen = [part.tolist() for part in np.array_split(np.concatenate(passes), updates)]
    else:
        chosen = [order[i : i + batch_size] for order in passes for i in range(0, len(order), batch_size)]
    packed = [pack(members, lengths, budget) for members in chosen]
    steps = max((-(-len(bins) // world) for bins in packed), default=0)
    result = []
    for members, bins in zip(chosen, packed):
        result += [Bin(found, members) for found in bins]
        result += [Bin([], members)] * (steps * world - len(bins))
    return result, steps


def plan_rows(rows: Sequence[dict], settings: Train, seed: int) -> tuple[list[list[int]], list[Bin], int, int]:
    """units, bins, accumulation steps and updates of the round on this many processes."""
    world = int(os.environ.get("WORLD_SIZE", 1))
    units = units_of(rows)
    lengths = [sum(len(rows[i]["prompt_tokens"]) + len(rows[i]["tokens"]) for i in unit) for unit in units]
    wanted = settings.updates_per_round or 0
    if wanted > len(units) * settings.epochs:
        raise BadInput(
            f"updates_per_round is {wanted}, but there are only {settings.epochs} × {len(units)} rows or pairs (epochs "
            "× data) to share out"
        )
    found, steps = plan(lengths, settings.batch_size, settings.epochs, settings.tokens_per_bin, seed, world, wanted)
    return units, found, steps, len(found) // (steps * world)


def collate(rows: Sequence[dict], pad: int) -> dict:
    """Pack rows end to end. Shapes: T tokens in the bin, N sampled ones among them, R rows.

    A row has `prompt_tokens`, `tokens` and `mask` (1 = sampled by the policy), and optionally `advantage`,
    `behaviour_logps` and `reference_logps` (float32 [its sampled tokens], log-probs under the policy that sampled it and under
    the reference), `foreign` and `pair`.
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
    pairs = [number for number, unit in enumerate(units_of(rows)) for _ in unit]
    per_row = {
        "advantage": torch.tensor([float(row.get("advantage", 1.0)) for row in rows]),
        "foreign": torch.tensor([bool(row.get("foreign", "behaviour_logps" not in row)) for row in rows], dtype=torch.bool),
        "length": torch.tensor([float(sum(row["mask"])) for row in rows]),
        "pair": torch.tensor(pairs, dtype=torch.int64),
    }
    return (
        {
            "input_ids": flat[None],  # [1, T]
            "position_ids": torch.tensor(positions)[None],  # [1, T], from 0 in each row
            "lengths": lengths,  # R numbers
            "keep": kept,  # [N] places whose logits are needed
            "targets": flat[kept + 1] if len(kept) else flat[:0],  # [N]
            "row": owner,  # [N] which row a token belongs to
            "behaviour": _flat(rows, "behaviour_logps"),  # [N]
            "reference": _flat(rows, "reference_logps"),  # [N]
        }
        | {name: values[owner] for name, values in per_row.items()}
    )  # [N] each


def _flat(rows: Sequence[dict], name: str) -> torch.Tensor:
    """Stored log-probs end to end; NaN where there are none, so that using them by mistake cannot go unseen."""
    parts = [np.asarray(row.get(name, np.full(sum(row["mask"]), np.nan)), np.float32) for row in rows]
    return torch.from_numpy(np.concatenate([np.zeros(0, np.float32), *parts]))


class Bins(Dataset):
    """The planned bins as a dataset: an item is a whole forward pass, with the counts of its units and its update's."""

    def __init__(self, rows: list[dict], units: list[list[int]], planned: list[Bin], pad: int):
        self.rows, self.units, self.planned, self.pad = rows, units, planned, pad
        self.sampled = [sum(sum(rows[i]["mask"]) for i in unit) for unit in units]

    def __len__(self) -> int:
        return len(self.planned)

    def __getitem__(self, index: int) -> dict:
        one = self.planned[index]
        item = collate([self.rows[i] for unit in one.units for i in self.units[unit]], self.pad)
        rewards = [self.rows[i]["reward"] for unit in one.units for i in self.units[unit] if "reward" in self.rows[i]]
        return item | {"bin": self.counts(one.units), "update": self.counts(one.update), "rewards": rewards}

    def counts(self, units: list[int]) -> dict[str, int]:
        return {
            "tokens": sum(self.sampled[unit] for unit in units),
            "rows": sum(len(self.units[unit]) for unit in units),
            "pairs": len(units),
        }
