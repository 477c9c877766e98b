"""Check the manifests of a run and tell for each round whether its artefacts are sound, stale, missing or damaged.

    sound      the bytes are those that the manifest names, and so are the inputs
    stale      an input changed since, or is not sound itself
    missing    named by a manifest, or expected for the config's rounds, but not there
    evicted    the weights were deleted as the config's section `keep` asks; they can be made again
    damaged    the bytes are other ones, or the manifest was changed

Of a model's files, size and time are compared if they were found sound before. With --full, all bytes are read.

Artefacts whose code changed after they were made, and which a person accepted (workflow_scripts.accept_code), count as
sound and are named. The stage fails if anything is not sound. Whether a changed config or changed code calls for a
rerun is what a dry run tells.
"""

import argparse
import functools
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from workflow_scripts.core import shards
from workflow_scripts.core.checkpoint import ENGINE, moments_beside
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json
from workflow_scripts.core.running import soundness
from workflow_scripts.core.running.cli import arguments, progress, run
from workflow_scripts.core.running.consent import accepted_outputs
from workflow_scripts.core.running.manifest import content_digest, file_digest, manifest_of

WORST_FIRST = ("damaged", "missing", "stale", "evicted", "sound")
FINE = ("evicted", "sound")
NO_ARTEFACTS = ("ledger", "state", "logs", "benchmarks", "report", "code")  # folders without manifests

State = tuple[str, str]  # the state's name, and the reason


def round_of(path: str, run_folder: str) -> str:
    """Return the round that an artefact belongs to, by its path below the run: "prompts", or a number."""
    below = path.removeprefix(f"{run_folder}/")
    if below.startswith("prompts/"):
        return "prompts"

    match = re.search(r"(?:^|/|_)r(\d+)(?:$|/|_|\.)", below)
    return match[1] if match else "0"


def read_manifests(folder: Path) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Return the manifests of a run by the path of their artefact, and what is wrong with damaged ones likewise."""
    manifests = {}
    faults = {}

    for path in sorted(folder.rglob("*.json")):
        if path.relative_to(folder).parts[0] in NO_ARTEFACTS or path.name[0] == ".":
            continue
        if {"model", ENGINE} & set(path.parts):
            continue
        if fault := soundness.damage_of_manifest(path):
            beside = [other for other in path.parent.glob(f"{path.stem}.*") if manifest_of(other) == path != other]
            faults[str(next(iter(sorted(beside)), path))] = f"{path} {fault}"
            continue
        value = read_json(path)
        if isinstance(value, dict) and isinstance(value.get("inputs"), dict):
            manifests[value.get("artefact", str(path))] = value

    return manifests, faults


class Walk:
    """The states of a run's artefacts, each computed once."""

    def __init__(self, folder: str, rounds: int, first: str, evaluate_every: int | None = 1, is_full: bool = False):
        """Read the manifests of a run.

        Args:
            folder: the run's folder.
            rounds: the number of rounds that the config asks for.
            first: round 0's checkpoint.json.
            evaluate_every: the rounds from one evaluation to the next; None if the run has no eval questions.
            is_full: whether the bytes of all models are read.
        """
        self.folder = folder
        self.is_full = is_full
        self._update_shard_digests()
        self.manifests, self.faults = read_manifests(Path(folder))

        numbers = [int(name) for name in map(self.round_of, self.manifests) if name.isdigit()]
        # Train prompts are found through what was made of them.
        self.expected = [f"{folder}/prompts/eval.parquet"] if evaluate_every else []
        last = max([rounds, *numbers])
        for n in range(last + 1):
            if evaluate_every and (n % evaluate_every == 0 or n == last):
                self.expected.append(f"{folder}/evaluation/r{n}.json")
            self.expected.append(f"{folder}/checkpoints/r{n}/checkpoint.json" if n else first)

    def _update_shard_digests(self) -> None:
        """Bring the shards' digests up to date with prompts that were edited since they were last read."""
        for stamp in Path(self.folder).glob(f"prompts/shards/*/{shards.STAMP}"):
            shards.sync_again(stamp.parent)

    def round_of(self, name: str) -> str:
        return round_of(name, self.folder)

    @functools.cache
    def state(self, name: str) -> State:
        """Return the state of an artefact."""
        if not Path(name).exists():
            return "missing", "not there"
        if name in self.faults:
            return "damaged", self.faults[name]
        if name not in self.manifests:
            is_ours = name.startswith(f"{self.folder}/") and name.endswith(".pkl")
            return ("missing", f"its manifest {manifest_of(name)} is not there") if is_ours else ("sound", "")

        manifest = self.manifests[name]
        is_evicted = bool(soundness.evicted(Path(name)))
        if not is_evicted and (fault := self.damage(name, manifest)):
            return fault

        for source, recorded in manifest["inputs"].items():
            state, _ = self.state(source)
            if state not in FINE:
                return "stale", f"its input {source} is {state}"
            if content_digest(source) != recorded:
                return "stale", f"its input {source} changed since"

        return ("evicted", "its weights were deleted; they can be made again") if is_evicted else ("sound", "")

    def damage(self, name: str, manifest: dict[str, Any]) -> State | None:
        """Return the state of an artefact whose bytes are not those that its manifest names."""
        if "files" in manifest:
            return self.checkpoint_damage(Path(name), manifest)

        if "sha256" in manifest and file_digest(name) != manifest["sha256"]:
            if self.round_of(name) == "prompts" and not manifest["inputs"]:
                return None  # prompts that were made up may be edited by hand; what was made of them is then stale
            return "damaged", "its bytes are not those that were written"

        return None

    def checkpoint_damage(self, name: Path, manifest: dict[str, Any]) -> State | None:
        folder = name.parent / "model"
        if not folder.is_dir():
            return "missing", f"{folder} is not there"

        if fault := soundness.damage_of_checkpoint(name, self.is_full):
            return "missing" if fault.endswith("is not there") else "damaged", fault

        moments = moments_beside(name)
        if "moments" in manifest and (not moments.exists() or content_digest(moments) != manifest["moments"]):
            return "damaged", f"{moments} is not what was written"

        return None

    def all(self) -> dict[str, dict[str, State]]:
        """Return {round: {artefact: state}} for what the config expects and everything that it was made from.

        Files that none of it needs, such as those of another number of shards, are left out.
        """
        names: set[str] = set()
        todo = [*self.expected, *self.faults]
        while todo:
            name = todo.pop()
            if name not in names:
                names.add(name)
                todo += self.manifests[name]["inputs"] if name in self.manifests else []

        rounds: dict[str, dict[str, State]] = defaultdict(dict)
        for name in progress(sorted(names), total=len(names), desc="verify", unit="artefact"):
            rounds[self.round_of(name)][name] = self.state(name)

        return rounds


def print_round(name: str, states: dict[str, State], accepted: set[str]) -> int:
    """Print a round's state with the reasons; return the number of artefacts that are not sound."""
    worst = min((state for state, _ in states.values()), key=WORST_FIRST.index)
    label = "prompts" if name == "prompts" else f"round {name}"
    by_earlier_code = len(accepted & states.keys())
    note = f", {by_earlier_code} accepted although made by earlier code" if by_earlier_code else ""
    print(f"{label}: {worst} ({len(states)} artefacts{note})")

    unsound = {artefact: state for artefact, state in states.items() if state[0] not in FINE}
    follows = [artefact for artefact, (_, reason) in unsound.items() if re.match(r"its input .* is ", reason)]
    for artefact in unsound.keys() - set(follows):
        print(f"  {unsound[artefact][0]}: {artefact}: {unsound[artefact][1]}")
    if follows:
        print(f"  stale: {len(follows)} that were made from these, first {follows[0]}: {unsound[follows[0]][1]}")

    return len(unsound)


def parse_arguments() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--run", required=True, help="the run's folder, such as runs/arithmetic")
    parser.add_argument("--rounds", type=int, default=0, help="number of rounds that the config asks for")
    parser.add_argument("--first", help="checkpoint.json of round 0 (default: the one in checkpoints/r0)")
    parser.add_argument("--without-evaluation", action="store_true", help="the run has no eval questions")
    parser.add_argument("--evaluate-every", type=int, default=1, help="rounds from one evaluation to the next")
    parser.add_argument("--full", action="store_true", help="read all bytes of all models")
    return parser.parse_args()


def main() -> int:
    args = parse_arguments()
    if not Path(args.run).is_dir():
        raise BadInput(f"{args.run}: nothing has been made here yet")

    first = args.first or f"{args.run}/checkpoints/r0/checkpoint.json"
    evaluate_every = None if args.without_evaluation else args.evaluate_every
    rounds = Walk(args.run, args.rounds, first, evaluate_every, args.full).all()
    accepted = accepted_outputs(Path(args.run))
    faults = 0
    for name in sorted(rounds, key=lambda n: (n.isdigit(), int(n) if n.isdigit() else 0)):
        faults += print_round(name, rounds[name], accepted)

    if faults:
        print(
            f"{faults} artefacts are not sound; `snakemake -n` tells what a rerun would make again. If files below a "
            "checkpoint are damaged or missing, delete its checkpoint.json and run again."
        )
    return 1 if faults else 0


if __name__ == "__main__":
    run(main)
