"""Which records belong to which shard, and one small digest file per shard.

The shard files are the plain inputs of `generate`; the prompts file itself counts as `ancient`. They are
rewritten while the Snakefile is read, each only if its own records changed, so an edited prompt reruns one shard.
"""

import hashlib
import json
import os
from pathlib import Path

from workflow_scripts.core.records import normalise, read_records, record_id, shard_of, write_text


def shard_text(records: list[dict]) -> str:
    """Count and digest of a shard's records; a sum of digests, so their order is free."""
    total = sum(
        int.from_bytes(hashlib.blake2b(json.dumps(r, sort_keys=True).encode(), digest_size=8).digest(), "big")
        for r in records
    )
    return f"{len(records)} records {total % 2**64:016x}\n"


def shard_texts(path: str | Path, shards: int, question_key: str = "question") -> list[str]:
    """The text of every shard file of the prompts in `path`."""
    members: list[list[dict]] = [[] for _ in range(shards)]
    for record in read_records(path):
        name = record.get("id") or record_id(normalise(str(record.get(question_key))))
        members[shard_of(name, shards)].append(record)
    return [shard_text(records) for records in members]


def sync(path: str | Path, shards: int, folder: str | Path, question_key: str = "question") -> None:
    """Write folder/{shards}_{rank}.txt, each only if its records changed. Untouched prompts are not read."""
    folder = Path(folder)
    files = [folder / f"{shards}_{rank}.txt" for rank in range(shards)]
    stamp = folder / ".stamp.json"
    state = os.stat(path)
    now = json.dumps([str(path), shards, state.st_size, state.st_mtime_ns])
    if stamp.exists() and stamp.read_text() == now and all(file.exists() for file in files):
        return
    for file, text in zip(files, shard_texts(path, shards, question_key)):
        if not file.exists() or file.read_text() != text:
            write_text(file, text)
    write_text(stamp, now)  # last: an interrupted sync is done again
