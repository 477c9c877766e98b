"""Delete what a run's config does not ask to keep: weights of earlier rounds, and ledgers of finished ones.

Weights are deleted only if the manifests prove that they can be made again: every input of their training is there and
is the one that was used, and so on back to a round whose weights are kept. checkpoint.json stays, so nothing is
pending, and `verify` reports the checkpoint as evicted. A ledger only makes a changed prompt or setting of its round
cheaper. The ledgers of paid requests are never deleted.

The workflow does this by itself after each job (config section `keep`). By hand, this command lists what would be
deleted and what making it again would cost; `--delete` deletes it.

    python -m workflow_scripts.forget --run runs/arithmetic --keep '{"checkpoints": ["last", "best"], "ledgers": 2}'
"""

import argparse
import contextlib
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflow_scripts import tasks
from workflow_scripts.config.load import settings_help
from workflow_scripts.config.sections import Keep
from workflow_scripts.core.checkpoint import ENGINE, moments_beside, remove
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json, write_json
from workflow_scripts.core.running import ledger
from workflow_scripts.core.running.cli import arguments, run
from workflow_scripts.core.running.manifest import content_digest
from workflow_scripts.core.running.soundness import EVICTED, evicted

HELD_BACK = ".model.evicted"  # a model's folder while it is deleted


@dataclass
class Eviction:
    """Something that is to be deleted."""

    what: str
    paths: list[Path]
    cost: str  # of making it again
    note: dict[str, Any] | None = None  # for the file that stays in its place

    @property
    def size(self) -> int:
        """The bytes that are freed."""
        files = [file for path in self.paths for file in ([path] if path.is_file() else path.rglob("*"))]
        return sum(file.stat().st_size for file in files if file.is_file())


class Forgetting:
    """Decides what of a run is deleted.

    Args:
        folder: the run's folder.
        keep: the config's section.
        metric: the metric of evaluations/r{n}.json by which `best` is chosen; larger is better.
    """

    def __init__(self, folder: str | Path, keep: Keep, metric: str):
        self.folder = Path(folder)
        self.keep = keep
        self.metric = metric

    def checkpoint(self, n: int) -> Path:
        return self.folder / f"checkpoints/r{n}/checkpoint.json"

    def rounds(self) -> list[int]:
        """Return the rounds that have a checkpoint."""
        return sorted(int(path.parent.name[1:]) for path in self.folder.glob("checkpoints/r*/checkpoint.json"))

    def evictions(self, needed: Collection[str] = (), busy: Collection[int] = ()) -> Iterator[Eviction]:
        """Yield what can be deleted now.

        Args:
            needed: the files that pending jobs read.
            busy: the rounds that pending jobs belong to.
        """
        yield from self._checkpoints(needed)
        yield from self._ledgers(busy)

    # ------------------------------------------------------------ checkpoints

    def kept_rounds(self) -> set[int]:
        """Return the rounds whose weights are kept."""
        rounds = self.rounds()
        if self.keep.checkpoints is None or not rounds:
            return set(rounds)

        kept = {0, rounds[-1]}
        for rule in self.keep.checkpoints:
            if rule == "best" and (best := self._best(rounds)) is not None:
                kept.add(best)
            elif not isinstance(rule, str):
                kept |= {n for n in rounds if n % rule.every == 0}
        return kept

    def _best(self, rounds: list[int]) -> int | None:
        """Return the evaluated round with the best metric, the earliest of equal ones."""
        values = {}
        for n in rounds:
            path = self.folder / f"evaluation/r{n}.json"
            value = read_json(path).get(self.metric) if path.exists() else None
            if isinstance(value, int | float):
                values[n] = value
        return max(values, key=lambda n: values[n], default=None)

    def _checkpoints(self, needed: Collection[str]) -> Iterator[Eviction]:
        kept = self.kept_rounds()
        for n in self.rounds():
            path = self.checkpoint(n)
            model = path.with_name("model")
            if n in kept or str(path) in needed or not model.is_dir():
                continue
            try:
                seconds = self.seconds_again(path)
            except BadInput as fault:
                print(f"round {n}: the weights stay, because they could not be made again: {fault}")
                continue

            paths = [model, *filter(Path.exists, [moments_beside(path), path.with_name(ENGINE)])]
            note = {"digest": read_json(path)["digest"], "seconds": round(seconds, 1)}
            yield Eviction(f"the weights of round {n}", paths, f"about {seconds:.0f} s of training", note)

    def seconds_again(self, checkpoint: Path) -> float:
        """Return what making a checkpoint again costs, with those that it starts from if they are evicted.

        Raises:
            BadInput: if an input is missing or another one than was used.
        """
        manifest = read_json(checkpoint)
        usage = checkpoint.with_name("checkpoint.usage.json")
        seconds = read_json(usage)["seconds"] if usage.exists() else 0.0

        for name, recorded in manifest["inputs"].items():
            source = Path(name)
            if not source.exists():
                raise BadInput(f"its input {name} is not there")
            if content_digest(source) != recorded:
                raise BadInput(f"its input {name} changed since")
            if source.name == "checkpoint.json" and not source.with_name("model").is_dir():
                if not evicted(source):
                    raise BadInput(f"the weights beside its input {name} are not there")
                seconds += self.seconds_again(source)

        return seconds

    def inputs(self, checkpoint: Path) -> list[str]:
        """Return the checkpoints that a checkpoint was made from."""
        return [name for name in read_json(checkpoint)["inputs"] if Path(name).name == "checkpoint.json"]

    # ------------------------------------------------------------ ledgers

    def _ledgers(self, busy: Collection[int]) -> Iterator[Eviction]:
        rounds = self.rounds()
        if self.keep.ledgers is None or not rounds:
            return

        for n in range(rounds[-1] - self.keep.ledgers + 1):
            folders = [path for path in self.ledgers() if self.round_of(path) == n]
            if folders and n not in busy:
                cost = "nothing, unless a prompt or a setting of that round changes: then all its records are made anew"
                yield Eviction(f"the ledgers of round {n}", folders, cost)

    def ledgers(self) -> list[Path]:
        """Return the folders of the ledgers of rounds, without those of paid requests."""
        folders = {path.parent for path in (self.folder / "ledger").rglob("*.jsonl")}
        return sorted(path for path in folders if self.round_of(path) is not None and "requests" not in path.as_posix())

    def round_of(self, path: Path) -> int | None:
        """Return the round that a ledger's folder belongs to, or None."""
        numbers = [re.fullmatch(r"r(\d+)", part) for part in path.relative_to(self.folder).parts]
        return next((int(match[1]) for match in numbers if match), None)

    def compact(self, busy: Collection[int]) -> int:
        """Merge the files of finished rounds' ledgers, and return the bytes that this freed."""
        return sum(ledger.compact(path) for path in self.ledgers() if self.round_of(path) not in busy)


def carry_out(eviction: Eviction) -> None:
    """Delete something. What stays behind tells that this was meant."""
    if eviction.note:
        model = eviction.paths[0]
        held_back = model.with_name(HELD_BACK)
        write_json(model.with_name(EVICTED), eviction.note)
        remove(held_back)
        model.rename(held_back)  # a killed deletion leaves no half of a model
        remove(held_back)
    for path in eviction.paths:
        remove(path)
        with contextlib.suppress(OSError):  # it still holds something else
            path.parent.rmdir()


def forget(
    forgetting: Forgetting, needed: Collection[str], busy: Collection[int], tell: Callable[[str], None] = print
) -> None:
    """Delete all that can be deleted now, and tell what."""
    for eviction in forgetting.evictions(needed, busy):
        size = eviction.size
        carry_out(eviction)
        tell(f"keep: deleted {eviction.what} ({size / 1e6:.1f} MB); making it again costs {eviction.cost}")
    if forgetting.keep.ledgers is not None:
        forgetting.compact(busy)


def parse_arguments() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--run", required=True, help="the run's folder, such as runs/arithmetic")
    parser.add_argument("--keep", required=True, help=settings_help("keep"))
    parser.add_argument("--delete", action="store_true", help="delete what is listed; no snakemake may work on the run")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    keep = Keep.model_validate_json(args.keep)
    note = Path(args.run) / "run.json"
    if not note.exists():
        raise BadInput(f"{args.run}: nothing has been made here yet")

    forgetting = Forgetting(args.run, keep, metric_of(read_json(note)["task"]))
    if args.delete:
        forget(forgetting, needed=(), busy=())
        return
    for eviction in forgetting.evictions():
        print(f"{eviction.what}: {eviction.size / 1e6:.1f} MB; making it again costs {eviction.cost}")


def metric_of(task: str) -> str:
    """Return the metric by which a task compares rounds."""
    return next(iter(tasks.part_class(task, "Evaluation").metrics))


if __name__ == "__main__":
    run(main)
