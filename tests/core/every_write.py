"""Write each kind of file that stages write into a folder, and print how each attempt ended, as JSON.

Usage: python -m tests.core.every_write FOLDER full|room
"""

import contextlib
import io
import json
import os
import shutil
import sys
from pathlib import Path

import safetensors.torch
import torch

from workflow_scripts.core.checkpoint import publish
from workflow_scripts.core.files import replacing, write_dataset, write_json, write_jsonl, write_parquet, write_text
from workflow_scripts.core.pickles import write_pickle
from workflow_scripts.core.running import cli
from workflow_scripts.core.running.ledger import Ledger

RECORDS = [{"uid": f"r{i}", "text": os.urandom(150).hex()} for i in range(2000)]
WEIGHTS = {"weight": torch.rand(1000, 200)}


def main() -> None:
    folder, state = Path(sys.argv[1]), sys.argv[2]
    reports = {}

    for kind, write in KINDS.items():
        work = folder / "work"
        work.mkdir()
        (work / "earlier").write_text("finished")
        if state == "full":
            fill(work / "ballast")
        reports[kind] = attempt(write, work)
        assert (work / "earlier").read_text() == "finished"
        shutil.rmtree(work)

    print(json.dumps(reports))


def fill(path: Path) -> None:
    """Leave less space than any of the files needs."""
    with contextlib.suppress(OSError), open(path, "wb") as file:
        for _ in range(10):
            file.write(b"x" * 8192)
            file.flush()


def attempt(write, work: Path) -> tuple[int, str, list[str]]:
    """Return the exit status of a write, its message, and what lies in the folder afterwards."""
    message = io.StringIO()
    status = 0

    with contextlib.redirect_stderr(message):
        try:
            cli.run(lambda: write(work))
        except SystemExit as end:
            status = int(end.code or 0)
    return status, message.getvalue().strip(), sorted(os.listdir(work))


def append_to_ledger(work: Path) -> None:
    """A batch that did not fit leaves a line without an end, which readers pass over."""
    ledger = Ledger(work / "earlier.ledger", "1_0")
    try:
        ledger.append([(record["uid"], record) for record in RECORDS])
    finally:
        assert len(list(ledger.entries())) in (0, len(RECORDS))
        if not list(ledger.entries()):
            shutil.rmtree(work / "earlier.ledger")


def save_state(work: Path) -> None:
    with replacing(work / "state.pt") as temporary:
        torch.save(WEIGHTS, temporary)


def publish_model(work: Path) -> None:
    def save(folder: Path) -> None:
        folder.mkdir()
        safetensors.torch.save_file(WEIGHTS, folder / "model.safetensors")

    publish(work / "checkpoint.json", save, {})


KINDS = {
    "text": lambda work: write_text(work / "a.txt", str(RECORDS)),
    "json": lambda work: write_json(work / "a.json", RECORDS),
    "json lines": lambda work: write_jsonl(work / "a.jsonl", RECORDS),
    "pickle": lambda work: write_pickle(work / "a.pkl", RECORDS),
    "parquet": lambda work: write_parquet(work / "a.parquet", RECORDS),
    "dataset": lambda work: write_dataset(work / "a", train=RECORDS),
    "ledger": append_to_ledger,
    "saved state": save_state,
    "checkpoint": publish_model,
}

if __name__ == "__main__":
    main()
