"""Bins in place of batches: sequences are packed into forward passes by a plan that is made once, before training.

The plan follows from lengths, seed, world size and token budget only. Each update has the same number of bins on every
rank (empty ones are allowed), so that gradient accumulation is constant and a resumed run repeats it.
"""

import heapq
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from workflow_scripts.config.sections import Train
from workflow_scripts.config.sections.training import updates_of_pass
from workflow_scripts.core.errors import BadInput

TrainingRow = dict[str, Any]


@dataclass
class Bin:
    """One forward pass."""

    units: list[int]  # positions in the list of units, by rising length
    update: list[int]  # positions of all units of the update, over all ranks


@dataclass
class Plan:
    """The forward passes of a training stage."""

    units: list[list[int]]  # positions of the rows that each unit consists of
    bins: list[Bin]  # ordered by (update, accumulation step, rank)
    accumulation: int  # bins per update and rank
    updates: int


def length_of(row: TrainingRow) -> int:
    """Return the number of a row's tokens, prompt included."""
    return len(row["prompt_tokens"]) + len(row["tokens"])


# ---------------------------------------------------------------- the plan


def units_of(rows: Sequence[TrainingRow]) -> list[list[int]]:
    """Return what must stay in one bin: a row, or the two rows of a preference pair (neighbours of equal `pair`)."""
    units: list[list[int]] = []

    for number, row in enumerate(rows):
        last = rows[units[-1][0]] if units and len(units[-1]) == 1 else {}
        if row.get("pair") is not None and last.get("pair") == row["pair"]:
            units[-1].append(number)
        else:
            units.append([number])

    return units


def pack(units: Sequence[int], lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Pack units into the fewest bins of at most `budget` tokens, by first-fit decreasing, in n log n steps.

    A unit that is longer than the budget gets a bin of its own.
    """
    bins: list[list[int]] = []
    room = Rooms(len(units), budget)

    for unit in sorted(units, key=lambda u: (-lengths[u], u)):
        first = room.first(lengths[unit]) if lengths[unit] <= budget else None
        if first is None or first >= len(bins):
            first = len(bins)
            bins.append([])
        bins[first].append(unit)
        room.take(first, lengths[unit])

    return [_by_length(members, lengths) for members in bins]


class Rooms:
    """The free tokens of bins, as a tree whose nodes hold the most that a bin below them has."""

    def __init__(self, count: int, budget: int):
        self.leaves = 1 << max(0, count - 1).bit_length()
        self.most = [budget] * (2 * self.leaves)

    def first(self, length: int) -> int | None:
        """Return the first bin with room for so many tokens."""
        if self.most[1] < length:
            return None

        node = 1
        while node < self.leaves:
            node = 2 * node if self.most[2 * node] >= length else 2 * node + 1
        return node - self.leaves

    def take(self, number: int, length: int) -> None:
        """Take tokens from a bin."""
        node = number + self.leaves
        self.most[node] -= length
        while node > 1:
            node //= 2
            self.most[node] = max(self.most[2 * node], self.most[2 * node + 1])


def spread(units: Sequence[int], lengths: Sequence[int], budget: int, world: int) -> list[list[int]]:
    """Spread units evenly over the fewest bins that all processes fill in equally many steps.

    The longest unit goes first, always into the bin with the fewest tokens. Bins are ordered by their tokens, because
    the processes wait for each other in each step.
    """
    steps = -(-len(pack(units, lengths, budget)) // world)
    ordered = sorted(units, key=lambda u: (-lengths[u], u))

    while (bins := _spread(ordered, lengths, budget, steps * world)) is None:
        steps += 1

    bins.sort(key=lambda members: -sum(lengths[unit] for unit in members))
    return [_by_length(members, lengths) for members in bins]


def _spread(units: Sequence[int], lengths: Sequence[int], budget: int, count: int) -> list[list[int]] | None:
    """Return units spread over so many bins, or None if a bin would get more than the budget."""
    bins: list[list[int]] = [[] for _ in range(count)]
    loads = [(0, number) for number in range(count)]  # a heap

    for unit in units:
        load, number = loads[0]
        if load and load + lengths[unit] > budget:
            return None
        bins[number].append(unit)
        heapq.heapreplace(loads, (load + lengths[unit], number))

    return bins


def _by_length(members: Sequence[int], lengths: Sequence[int]) -> list[int]:
    return sorted(members, key=lambda u: (lengths[u], u))


def updates_of(order: Sequence[int], batch_size: int) -> list[list[int]]:
    """Return the units of each update of a pass. Few units that are left over join the last update."""
    count = updates_of_pass(len(order), batch_size)
    starts = [number * batch_size for number in range(count)]
    return [list(order[start:end]) for start, end in zip(starts, [*starts[1:], len(order)])]


def plan(
    lengths: Sequence[int], batch_size: int, epochs: int, budget: int, seed: int, world: int = 1, updates: int = 0
) -> tuple[list[Bin], int]:
    """Return the bins of all updates, ordered by (update, accumulation step, rank), and the accumulation steps.

    Args:
        lengths: the number of tokens of each unit, prompts included.
        batch_size: units per update.
        budget: tokens per bin.
        world: the number of processes.
        updates: if above 0, the data of all epochs is divided among exactly so many updates, in place of updates of
            `batch_size` units.
    """
    passes = []
    for epoch in range(epochs):
        order = list(range(len(lengths)))
        random.Random(f"{seed}.{epoch}").shuffle(order)
        passes.append(order)

    if updates:
        chosen = [part.tolist() for part in np.array_split(np.concatenate(passes), updates)]
    else:
        chosen = [members for order in passes for members in updates_of(order, batch_size)]

    if world == 1:
        packed = [pack(members, lengths, budget) for members in chosen]
    else:
        packed = [spread(members, lengths, budget, world) for members in chosen]
    steps = max((-(-len(bins) // world) for bins in packed), default=0)

    result = []
    for members, bins in zip(chosen, packed):
        result += [Bin(units, members) for units in bins]
        result += [Bin([], members)] * (steps * world - len(bins))

    return result, steps


def plan_rows(rows: Sequence[TrainingRow], settings: Train, seed: int) -> Plan:
    """Return the plan of a training stage on this many processes."""
    world = int(os.environ.get("WORLD_SIZE", 1))
    units = units_of(rows)
    lengths = [sum(length_of(rows[i]) for i in unit) for unit in units]

    wanted = settings.updates_per_round or 0
    if wanted > len(units) * settings.epochs:
        raise BadInput(
            f"updates_per_round is {wanted}, but there are only {settings.epochs} × {len(units)} rows or pairs (epochs "
            "× data) to divide among them"
        )

    bins, steps = plan(lengths, settings.batch_size, settings.epochs, settings.tokens_per_bin, seed, world, wanted)
    return Plan(units, bins, steps, updates=len(bins) // (steps * world))


# ---------------------------------------------------------------- a bin as tensors


def collate(rows: Sequence[TrainingRow], pad: int) -> dict[str, Any]:
    """Pack rows end to end: T tokens in the bin, N sampled tokens among them, R rows.

    A row has `prompt_tokens`, `tokens` and `mask` (1 = sampled by the policy). Optional are `advantage`, `foreign` and
    `pair`, and `behaviour_logps` and `reference_logps` (float32 [its sampled tokens]: log-probs under the policy that
    sampled it and under the reference), `correction` (float32 [its sampled tokens]: factors of the advantage), and
    `start_kl` (the KL to the reference at the start of the round) and `replayed` (bool: of an earlier round).

    Returns:
        input_ids [1, T]; position_ids [1, T], from 0 in each row; lengths, R numbers; keep [N], the positions whose
        logits predict the sampled tokens; targets [N]; row [N], the index of each token's row; behaviour, reference,
        advantage, foreign, length, start_kl, replayed and pair, all [N].
    """
    ids: list[int] = []
    positions: list[int] = []
    lengths: list[int] = []
    owner: list[int] = []
    keep: list[np.ndarray] = []

    for number, row in enumerate(rows):
        tokens = [*row["prompt_tokens"], *row["tokens"]]
        sampled = np.flatnonzero(row["mask"]) + len(row["prompt_tokens"])
        keep.append(sampled + len(ids) - 1)  # the logits that predict a token are one position before it
        owner += [number] * len(sampled)
        ids += tokens
        positions += range(len(tokens))
        lengths.append(len(tokens))

    if not rows:
        ids, positions, lengths, keep = [pad], [0], [1], [np.zeros(0, dtype=np.int64)]

    kept = torch.from_numpy(np.concatenate(keep).astype(np.int64))
    flat = torch.tensor(ids)
    of_token = torch.tensor(owner, dtype=torch.int64)
    pairs = [number for number, unit in enumerate(units_of(rows)) for _ in unit]
    is_foreign = [bool(row.get("foreign", "behaviour_logps" not in row)) for row in rows]
    per_row = {
        "advantage": torch.tensor([float(row.get("advantage", 1.0)) for row in rows]),
        "foreign": torch.tensor(is_foreign, dtype=torch.bool),
        "length": torch.tensor([float(sum(row["mask"])) for row in rows]),
        "replayed": torch.tensor([bool(row.get("replayed")) for row in rows], dtype=torch.bool),
        "start_kl": torch.tensor([float(row.get("start_kl", 0.0)) for row in rows]),
        "pair": torch.tensor(pairs, dtype=torch.int64),
    }

    of_tokens = {name: values[of_token] for name, values in per_row.items()}
    if any("correction" in row for row in rows):
        of_tokens["advantage"] = of_tokens["advantage"] * _flat(rows, "correction", 1.0)

    return {
        "input_ids": flat[None],
        "position_ids": torch.tensor(positions)[None],
        "lengths": lengths,
        "keep": kept,
        "targets": flat[kept + 1] if len(kept) else flat[:0],
        "row": of_token,
        "behaviour": _flat(rows, "behaviour_logps"),
        "reference": _flat(rows, "reference_logps"),
        **of_tokens,
    }


def _flat(rows: Sequence[TrainingRow], name: str, missing: float = np.nan) -> torch.Tensor:
    """Return stored values end to end; NaN where there are none, so that using them by mistake cannot go unseen."""
    parts = [np.asarray(row.get(name, np.full(sum(row["mask"]), missing)), np.float32) for row in rows]
    return torch.from_numpy(np.concatenate([np.zeros(0, np.float32), *parts]))


class Bins(Dataset):
    """The planned bins as a dataset. An item is a whole forward pass, with the counts of its units and its update's."""

    def __init__(self, rows: list[TrainingRow], plan: Plan, pad: int):
        self.rows = rows
        self.plan = plan
        self.pad = pad
        self.sampled = [sum(sum(rows[i]["mask"]) for i in unit) for unit in plan.units]
        self.lengths = [sum(length_of(rows[i]) for i in unit) for unit in plan.units]

    def __len__(self) -> int:
        return len(self.plan.bins)

    def __getitem__(self, index: int) -> dict[str, Any]:
        chosen = self.plan.bins[index]
        rows = [self.rows[i] for unit in chosen.units for i in self.plan.units[unit]]
        return collate(rows, self.pad) | {
            "bin": self.counts(chosen.units),
            "update": self.counts(chosen.update),
            "rewards": [row["reward"] for row in rows if "reward" in row],
        }

    def counts(self, units: list[int]) -> dict[str, int]:
        """Return the numbers of sampled tokens, rows and pairs of some units, and of all their tokens (`length`)."""
        return {
            "length": sum(self.lengths[unit] for unit in units),
            "tokens": sum(self.sampled[unit] for unit in units),
            "rows": sum(len(self.plan.units[unit]) for unit in units),
            "pairs": len(units),
        }
