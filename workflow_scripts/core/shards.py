"""Which records belong to which shard, and one small digest file per shard.

The shard files are the plain inputs of `generate`; the prompts file itself counts as `ancient`. They are
rewritten while the Snakefile is read, each only if its own records changed, so an edited prompt reruns one shard.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from workflow_scripts.core.records import read_records, shard_of, write_text


def shard_text(records: Iterable[dict]) -> str:
    """Count and digest of a shard's records; a sum of digests, so their order is free."""
    count = total = 0
    for record in records:
        line = json.dumps(record, sort_keys=True).encode()
        total += int.from_bytes(hashlib.blake2b(line, digest_size=8).digest(), "big")
        count += 1
    return f"{count} records {total % 2**64:016x}\n"


def sync(
    folder: str | Path, shards: int, path: str | Path, check: Callable[[list[dict]], None] = lambda records: None
) -> None:
    """Write folder/{shards}_{rank}.txt, each only if its records changed; an untouched file is not read.

    `check` gets the records of a changed file and raises BadInput if they cannot be used.
    """
    folder, now = Path(folder), json.dumps([shards, file_state(path)])
    files = [folder / f"{shards}_{rank}.txt" for rank in range(shards)]
    stamp = folder / ".stamp.json"
    if stamp.exists() and stamp.read_text() == now and all(file.exists() for file in files):
        return
    members: list[list[dict]] = [[] for _ in files]
    changed = list(read_records(path))
    check(changed)
    for record in changed:
        members[shard_of(record["id"], shards)].append(record)
    for file, records in zip(files, members):
        text = shard_text(records)
        if not file.exists() or file.read_text() != text:
            write_text(file, text)
    write_text(stamp, now)  # last: an interrupted sync is done again


def file_state(path: str | Path) -> list:
    """What changes when a file is written: cheap to ask, unlike its bytes."""
    found = os.stat(path)
    return [str(path), found.st_size, found.st_mtime_ns]
