"""Record stages map one function over records and resume: a ledger keeps finished results.

A ledger is a folder of append-only JSON-lines files, one per shard and writer, so it needs no locks and may lie on a
parallel file system. One line holds one batch of finished records and the checksum of their text. A line that was cut
off or damaged is dropped with a message.

`map_records` plans batches from the shard's full list and enters them whole, so that a killed run repeats its planned
batches to the bit. `stream_records` enters records in the order in which they are finished, every few seconds.
"""

import json
import os
import re
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import HALF_CHARACTERS
from workflow_scripts.core.identity import digest
from workflow_scripts.core.running.cli import progress, say
from workflow_scripts.core.running.deadline import OutOfTime, Pace
from workflow_scripts.core.running.replicas import Team
from workflow_scripts.core.running.secrets import hide


class Ledger:
    """Results by key. `folder` serves one stage; `shard` names this writer's share of it, such as "4_0".

    A private ledger is one of paid requests. Only its owner can read its files, and no secret is written to them.
    """

    is_private = False

    def __init__(self, folder: str | Path, shard: str):
        self.folder = Path(folder)
        self.shard = shard
        self.folder.mkdir(parents=True, exist_ok=True)
        self.own = self.folder / f"{shard}.{int(time.time())}-{os.getpid()}-{uuid.uuid4().hex[:6]}.jsonl"

    def find(self, keys: Sequence[str]) -> dict[str, Any]:
        """Return the stored results among `keys`.

        Files of other numbers of shards are read only if this shard's own files lack some of the keys.
        """
        results: dict[str, Any] = {}
        unique_keys = set(keys)
        cut = self.shard.rsplit("_", 1)[0]
        own = sorted(self.folder.glob(f"{self.shard}.*.jsonl"))
        others = sorted(set(self.folder.glob("*.jsonl")) - set(self.folder.glob(f"{cut}_*.jsonl")))

        for path in [*own, *others]:
            if len(results) == len(unique_keys):
                break
            results |= {key: value for key, value in self._entries(path) if key in unique_keys}

        return results

    def entries(self) -> Iterator[tuple[str, Any]]:
        """Yield everything that is stored, as (key, value), in the order of writing."""
        for path in sorted(self.folder.glob("*.jsonl"), key=lambda path: path.name.split(".", 1)[1]):
            yield from self._entries(path)

    def news(self, read: dict[Path, int]) -> Iterator[tuple[str, Any]]:
        """Yield what was entered since the last call with the same `read`, which holds how far each file was read.

        A line that its writer has not finished is left for a later call.
        """
        for path in sorted(self.folder.glob("*.jsonl"), key=lambda path: path.name.split(".", 1)[1]):
            begin = read.get(path, 0)
            if path.stat().st_size == begin:
                continue
            with open(path, "rb") as file:
                file.seek(begin)
                text = file.read()

            whole = text[: text.rfind(b"\n") + 1]
            read[path] = begin + len(whole)
            for line in whole.splitlines(keepends=True):
                batch = batch_in(line)
                if batch is None:
                    raise BadInput(
                        f"{path}: a line is damaged, so what was asked and paid is unknown; bring the file back from a "
                        "copy, or delete it to ask (and pay) again"
                    )
                yield from batch

    def _entries(self, path: Path) -> Iterator[tuple[str, Any]]:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                batch = batch_in(line)
                if batch is None:
                    say(
                        f"{path}: line {number} was cut off (its writer was killed) or damaged; its batch is computed "
                        "again"
                    )
                    continue
                yield from batch

    def append(self, batch: Sequence[tuple[str, Any]]) -> None:
        """Enter a finished batch. It is on disk before the next one starts."""
        text = json.dumps(batch, ensure_ascii=False, separators=(",", ":"))
        line = line_of(hide(text) if self.is_private else text)
        with open(self.own, "ab", opener=self._open) as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def _open(self, path: str, flags: int) -> int:
        return os.open(path, flags, 0o600 if self.is_private else 0o666)


MERGED = 256  # results in a line of a compacted ledger
HEAD = b'{"crc32":"%08x","batch":'  # of a line, before the JSON of its batch
LINE = re.compile(rb'\{"crc32":"([0-9a-f]{8})","batch":(.*)\}\n', re.DOTALL)


def line_of(text: str) -> bytes:
    """Return the line of a ledger that holds a batch, given as JSON."""
    data = text.encode(errors=HALF_CHARACTERS)
    return HEAD % zlib.crc32(data) + data + b"}\n"


def batch_in(line: bytes) -> list[Any] | None:
    """Return the batch that a line of a ledger holds; None if the line was cut off or changed.

    Lines of earlier versions hold the batch alone, without a checksum.
    """
    try:
        if not line.startswith(b"{"):
            batch = json.loads(line) if line.endswith(b"\n") else None
            return batch if isinstance(batch, list) else None

        match = LINE.fullmatch(line)
        is_whole = match is not None and int(match[1], 16) == zlib.crc32(match[2])
        return json.loads(match[2]) if match and is_whole else None
    except ValueError:  # not JSON, or not even text
        return None


def compact(folder: Path) -> int:
    """Merge the files of each shard into one, without results that came twice, and return the bytes that this freed.

    No writer may be at work.
    """
    before = sum(path.stat().st_size for path in folder.glob("*.jsonl"))
    shards = {path.name.split(".", 1)[0] for path in folder.glob("*.jsonl")}

    for shard in sorted(shards):
        files = sorted(folder.glob(f"{shard}.*.jsonl"))
        if len(files) > 1:
            ledger = Ledger(folder, shard)
            entries = {key: value for path in files for key, value in ledger._entries(path)}
            items = list(entries.items())
            for start in range(0, len(items), MERGED):
                ledger.append(items[start : start + MERGED])
            for path in files:
                path.unlink()

    return before - sum(path.stat().st_size for path in folder.glob("*.jsonl"))


def map_records(
    jobs: Sequence[Mapping[str, Any]],
    determines: Callable[[Any], Any],
    compute: Callable[[list[Any]], Sequence[Any]],
    ledger: Ledger | None,
    batches: Sequence[Sequence[int]],
    desc: str,
    team: Team | None = None,
) -> list[Any]:
    """Apply `compute` to `jobs` batch by batch, skip what the ledger holds, and return results in the jobs' order.

    Args:
        jobs: the records, each with a `uid`.
        determines: returns the JSON value that a job's result depends on; its digest is the job's key.
        compute: returns one JSON value for each job of a batch.
        ledger: where finished batches are kept; None keeps nothing.
        batches: positions that together cover `jobs`.
        desc: the name of the stage in messages and in the progress bar.
        team: the processes that share the batches. One that works in step calls `compute` without records at times.

    Raises:
        OutOfTime: with a ledger, if another batch might not end before the job's time is up.
    """
    keys = [digest(determines(job)) for job in jobs]
    results = ledger.find(keys) if ledger else {}
    planned = team.part(batches) if team else batches  # a part of the whole plan, on which all processes agree
    todo = [[i for i in batch if keys[i] not in results] for batch in planned]
    total = sum(map(len, planned))
    missing = [i for batch in todo for i in batch]
    _say_where_to_go_on(desc, jobs, total, missing)

    pace = Pace()
    with progress(total=total, desc=desc, unit="record") as bar:
        bar.update(total - len(missing))

        steps = team.in_step(todo) if team else [batch for batch in todo if batch]
        for number, batch in enumerate(steps):
            # The first batch is always computed, so that there is progress.
            if number and ledger and (team.any(pace.is_over()) if team else pace.is_over()):
                _raise_out_of_time(desc, team)

            values = compute([jobs[i] for i in batch])
            if len(values) != len(batch):
                raise AssertionError(f"{desc}: {len(batch)} records in, {len(values)} results out")
            if ledger and batch:
                ledger.append([(keys[i], value) for i, value in zip(batch, values)])

            results |= {keys[i]: _as_read(value) for i, value in zip(batch, values)}
            bar.update(len(batch))

    return _collect(keys, results, ledger, team)


Finished = Callable[[str, Any], None]  # receives the uid of a job and its result
Tick = Callable[[], None]  # to be called about once a second; it may raise OutOfTime


def stream_records(
    jobs: Sequence[Mapping[str, Any]],
    determines: Callable[[Any], Any],
    feed: Callable[[list[str], Finished, Tick], None],
    ledger: Ledger,
    order: Sequence[int],
    desc: str,
    team: Team | None = None,
    seconds: float = 10.0,
) -> list[Any]:
    """Let `feed` work on `jobs`, skip what the ledger holds, and return results in the jobs' order.

    Args:
        jobs: the records, each with a `uid` of its own.
        determines: returns the JSON value that a job's result depends on; its digest is the job's key.
        feed: works on the jobs of these uids and reports each result (a JSON value) as soon as there is one.
        ledger: where finished records are kept.
        order: all positions, in the order of their work.
        desc: the name of the stage in messages and in the progress bar.
        team: the processes that share the jobs.
        seconds: the time between two entries into the ledger; a killed job loses what was finished since the last one.

    Raises:
        OutOfTime: if the job's time is nearly up.
    """
    keys = [digest(determines(job)) for job in jobs]
    results = ledger.find(keys)
    planned = team.part(order) if team else order
    missing = [i for i in planned if keys[i] not in results]
    _say_where_to_go_on(desc, jobs, len(planned), missing)

    key_of = {jobs[i]["uid"]: keys[i] for i in missing}
    pace = Pace()
    group: list[tuple[str, Any]] = []
    entered = time.monotonic()
    has_progress = False

    def enter() -> None:
        nonlocal entered
        if group:
            ledger.append(group)
        group.clear()
        entered = time.monotonic()

    def finished(uid: str, value: Any) -> None:
        nonlocal has_progress
        has_progress = True
        group.append((key_of[uid], value))
        results[key_of[uid]] = _as_read(value)
        bar.update()

    def tick() -> None:
        if time.monotonic() - entered >= seconds:
            enter()
        if pace.is_over() and has_progress:  # an attempt without any progress would be followed by others like it
            raise OutOfTime

    with progress(total=len(planned), desc=desc, unit="record") as bar:
        bar.update(len(planned) - len(missing))
        try:
            if missing:
                feed(list(key_of), finished, tick)
        except OutOfTime:
            enter()
            _raise_out_of_time(desc, team)
        finally:
            enter()

    return _collect(keys, results, ledger, team)


def _say_where_to_go_on(desc: str, jobs: Sequence[Mapping[str, Any]], total: int, missing: Sequence[int]) -> None:
    if len(missing) < total:
        where = f"going on at record {jobs[missing[0]].get('uid')}" if missing else "nothing is left to compute"
        say(f"{desc}: {total - len(missing)} of {total} records are in the ledger, {where}")


def _raise_out_of_time(desc: str, team: Team | None) -> None:
    if team:
        team.wait()  # they end by themselves and must not be cut off within their work
    raise OutOfTime(f"{desc}: time is nearly up; finished records are in the ledger")


def _as_read(value: Any) -> Any:
    """Return a value as it is read from the ledger, so that this run and one that resumes see the same."""
    return json.loads(json.dumps(value))


def _collect(keys: list[str], results: dict[str, Any], ledger: Ledger | None, team: Team | None) -> list[Any]:
    """Return all results in order, with those of the other processes."""
    if team:
        team.join()
        if ledger:
            results |= ledger.find([key for key in keys if key not in results])

    return [results[key] for key in keys]
