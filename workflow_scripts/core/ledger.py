"""Record stages map and resume: finished results are kept by a key of all that determines them.

A ledger is a folder of append-only JSON-lines files, one per shard and writer, so that no locks are needed
(it may lie on a parallel file system). One line holds one finished batch: batches are planned from the shard's
full list and entered whole, so a killed run repeats its planned batches to the bit. A torn last line is dropped
and said.
"""

import json
import os
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from workflow_scripts.core.cli import progress, say
from workflow_scripts.core.copies import Copies
from workflow_scripts.core.deadline import OutOfTime, Pace
from workflow_scripts.core.records import digest


class Ledger:
    """Results by key. `folder` serves one stage; `shard` names this writer's share of it, such as "4_0"."""

    def __init__(self, folder: str | Path, shard: str):
        self.folder, self.shard = Path(folder), shard
        self.folder.mkdir(parents=True, exist_ok=True)
        self.own = self.folder / f"{shard}.{int(time.time())}-{os.getpid()}-{uuid.uuid4().hex[:6]}.jsonl"

    def find(self, keys: Sequence[str]) -> dict[str, object]:
        """The stored results among `keys`. Other cuts of the data are read only when this one lacks some."""
        found: dict[str, object] = {}
        wanted, cut = set(keys), self.shard.rsplit("_", 1)[0]
        own = sorted(self.folder.glob(f"{self.shard}.*.jsonl"))
        others = sorted(set(self.folder.glob("*.jsonl")) - set(self.folder.glob(f"{cut}_*.jsonl")))
        for path in [*own, *others]:
            if len(found) == len(wanted):
                break
            found |= {key: value for key, value in self._entries(path) if key in wanted}
        return found

    def entries(self):
        """All that is stored, as (key, value), in the order of writing."""
        for path in sorted(self.folder.glob("*.jsonl"), key=lambda path: path.name.split(".", 1)[1]):
            yield from self._entries(path)

    def _entries(self, path: Path):
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    batch = json.loads(line) if line.endswith(b"\n") else None
                except ValueError:  # not JSON, or not even text
                    batch = None
                if not isinstance(batch, list):
                    say(f"{path}: line {number} is torn (the writer was killed); its batch is done again")
                    continue
                yield from batch

    def append(self, batch: list[tuple[str, object]]) -> None:
        """Enter a finished batch, on disk before the next one starts."""
        with open(self.own, "a") as file:
            file.write(json.dumps(batch, ensure_ascii=False, separators=(",", ":")) + "\n")
            file.flush()
            os.fsync(file.fileno())


def map_records(
    jobs: Sequence[dict],
    determines: Callable[[dict], object],
    compute: Callable[[list[dict]], list[object]],
    ledger: Ledger | None,
    batches: Sequence[Sequence[int]],
    desc: str,
    copies: Copies | None = None,
) -> list[object]:
    """compute() over `jobs`, batch by batch, skipping what the ledger holds; results in the jobs' order.

    `determines` gives the JSON value that a job's result depends on (the job's own part of its key); `batches`
    are lists of positions that cover `jobs`; of several `copies` of this process, each does a part of them. Results
    must survive JSON. With a ledger, OutOfTime is raised where another batch may not end before the job's time is up.
    """
    keys = [digest(determines(job)) for job in jobs]
    results = ledger.find(keys) if ledger else {}
    planned = copies.part(batches) if copies else batches  # of the whole plan, which all copies agree on
    todo = [[i for i in batch if keys[i] not in results] for batch in planned]
    total, missing = sum(map(len, planned)), sum(map(len, todo))
    if jobs and results:
        first = next((jobs[i].get("uid", keys[i]) for batch in todo for i in batch), None)
        where = f"going on at record {first}" if first else "nothing is left to compute"
        say(f"{desc}: {total - missing} of {total} records are in the ledger, {where}")
    pace = Pace()
    with progress(total=total, desc=desc, unit="record") as bar:
        bar.update(total - missing)
        for number, batch in enumerate(filter(None, todo)):
            if number and ledger and pace.is_over():  # the first one is always done, so that there is headway
                if copies:
                    copies.wait()  # they end by themselves, and are not to be cut off in a batch
                raise OutOfTime(f"{desc}: time is nearly up; what is finished is in the ledger")
            values = compute([jobs[i] for i in batch])
            if len(values) != len(batch):
                raise AssertionError(f"{desc}: {len(batch)} records in, {len(values)} results out")
            if ledger:
                ledger.append([(keys[i], value) for i, value in zip(batch, values)])
            # as the ledger would give them back, so that a resumed run sees the very same values
            results |= {keys[i]: json.loads(json.dumps(value)) for i, value in zip(batch, values)}
            bar.update(len(batch))
    if copies:
        copies.join()
        results |= ledger.find([key for key in keys if key not in results])
    return [results[key] for key in keys]
