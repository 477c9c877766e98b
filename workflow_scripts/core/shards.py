"""One small digest file per shard of the prompts.

The digest files are the plain inputs of `generate`, and the prompts file itself is `ancient`. They are rewritten while
Snakemake reads the Snakefile, each only if its own records changed, so that an edited prompt reruns one shard.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from workflow_scripts.core.files import write_text
from workflow_scripts.core.identity import shard_of
from workflow_scripts.core.records import read_records


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
    shards: int,
    path: str | Path,
    check: Callable[[list[dict[str, Any]]], None] = lambda records: None,
) -> None:
    """Bring folder/{shards}_{rank}.txt up to date with the prompts in `path`.

    A digest file is rewritten only if its records changed, and a prompts file that nobody touched is not read. `check`
    receives the records of a changed file and raises BadInput if they cannot be used.
    """
    folder = Path(folder)
    state = json.dumps([shards, file_state(path)])
    files = [folder / f"{shards}_{rank}.txt" for rank in range(shards)]
    stamp = folder / ".stamp.json"

    if stamp.exists() and stamp.read_text() == state and all(file.exists() for file in files):
        return

    records = list(read_records(path))
    check(records)
    members: list[list[dict[str, Any]]] = [[] for _ in files]
    for record in records:
        members[shard_of(record["id"], shards)].append(record)

    for file, own in zip(files, members):
        text = shard_text(own)
        if not file.exists() or file.read_text() != text:
            write_text(file, text)

    write_text(stamp, state)  # last, so that an interrupted sync is done again


def file_state(path: str | Path) -> list:
    """Return name, size and time of a file: they change when it is written, and are cheap to read."""
    status = os.stat(path)
    return [str(path), status.st_size, status.st_mtime_ns]
