"""One small digest file per shard of the prompts; if a round answers only a part of them, also per round and shard.

The digest files are the plain inputs of `generate`, and the prompts file itself is `ancient`. They are rewritten while
Snakemake reads the Snakefile, each only if its own records changed, so that an edited prompt reruns one shard.
"""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from workflow_scripts.core.files import read_json, write_text
from workflow_scripts.core.identity import shard_of
from workflow_scripts.core.records import read_records
from workflow_scripts.core.slices import Slicing, slices

STAMP = ".stamp.json"  # what the digest files of a split were made from

Records = list[dict[str, Any]]


def names_of_shards(count: int) -> list[str]:
    """Return the names of so many shards, such as 2_0 and 2_1."""
    return [f"{count}_{rank}" for rank in range(count)]


def round_folder(n: int | str) -> str:
    """Return the name of the folder with the digests of the prompts that round n answers."""
    return f"r{n}"


def shard_text(records: Iterable[dict[str, Any]]) -> str:
    """Return the number of a shard's records and a sum of their digests, which does not depend on their order."""
    count = total = 0

    for record in records:
        line = json.dumps(record, sort_keys=True).encode()
        total += int.from_bytes(hashlib.blake2b(line, digest_size=8).digest(), "big")
        count += 1

    return f"{count} records {total % 2**64:016x}\n"


def sync(
    folder: str | Path,
    counts: Sequence[int],
    path: str | Path,
    check: Callable[[Records], None] = lambda records: None,
    slicing: Slicing | None = None,
) -> None:
    """Bring folder/{count}_{rank}.txt up to date with the prompts in `path`, for all numbers of shards in `counts`.

    A digest file is rewritten only if its records changed, and a prompts file that nobody touched is not read. With
    `slicing`, the digests of rounds (folder/r{n}/) are brought up to date too, if they exist. `check` receives the
    records of a changed file and raises BadInput if they cannot be used.
    """
    folder = Path(folder)
    stamp = folder / STAMP
    state = json.dumps({"counts": list(counts), "prompts": file_state(path), "slicing": slicing})
    files = [folder / f"{shard}.txt" for count in counts for shard in names_of_shards(count)]

    if stamp.exists() and stamp.read_text() == state and all(file.exists() for file in files):
        return

    records = list(read_records(path))
    check(records)
    write_digests(folder, counts, records)
    if slicing:
        update_round_digests(folder, records, slicing)

    write_text(stamp, state)  # last, so that an interrupted sync is done again


def sync_again(folder: Path) -> None:
    """Bring the digest files of a split up to date, with the settings of the last time."""
    state = read_json(folder / STAMP)

    if isinstance(state, list):  # as it was written before there were several numbers of shards
        count, (path, *_) = state
        sync(folder, [count], path)
    else:
        slicing = Slicing(*state["slicing"]) if state["slicing"] else None
        sync(folder, state["counts"], state["prompts"][0], slicing=slicing)


def write_digests(folder: Path, counts: Sequence[int], records: Records) -> None:
    """Write the digest files of these records that differ from those in the folder."""
    for count in counts:
        members: list[Records] = [[] for _ in range(count)]
        for record in records:
            members[shard_of(record["id"], count)].append(record)

        for shard, own in zip(names_of_shards(count), members):
            file = folder / f"{shard}.txt"
            text = shard_text(own)
            if not file.exists() or file.read_text() != text:
                write_text(file, text)


def update_round_digests(folder: Path, records: Records, slicing: Slicing) -> None:
    """Bring the digest files in folder/r{n}/ up to date with the prompts that round n answers. None is added."""
    by_id = {record["id"]: record for record in records}
    counts: dict[int, set[int]] = defaultdict(set)
    for file in folder.glob("r*/*_*.txt"):
        counts[int(file.parent.name.removeprefix("r"))].add(int(file.name.split("_")[0]))

    for n, chosen in enumerate(islice(slices(list(by_id), slicing), max(counts, default=0)), 1):
        if n in counts:
            write_digests(folder / round_folder(n), sorted(counts[n]), [by_id[prompt] for prompt in chosen])


def file_state(path: str | Path) -> list:
    """Return name, size and time of a file: they change when it is written, and are cheap to read."""
    status = os.stat(path)
    return [str(path), status.st_size, status.st_mtime_ns]
