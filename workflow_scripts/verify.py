"""Walk the manifests of a run and say per round whether its artefacts are sound, stale, missing or damaged.

sound: its bytes are those that its manifest names, and so are its inputs. stale: an input changed since, or is not
sound itself. missing: named by a manifest, or by the config's rounds, but not there. damaged: other bytes.
Fails if anything is not sound.
"""

import functools
import re
from collections import defaultdict
from pathlib import Path

from workflow_scripts.core import shards
from workflow_scripts.core.checkpoint import describe
from workflow_scripts.core.cli import arguments, progress, run
from workflow_scripts.core.manifest import content_digest, file_digest
from workflow_scripts.core.records import BadInput, read_json

ORDER = ("damaged", "missing", "stale", "sound")


def round_of(path: str, run_folder: str) -> str:
    """The round an artefact belongs to, by its path below the run: "prompts", or a number."""
    below = path.removeprefix(f"{run_folder}/")
    if below.startswith("prompts/"):
        return "prompts"
    found = re.search(r"(?:^|/|_)r(\d+)(?:$|/|_|\.)", below)
    return found[1] if found else "0"


class Walk:
    """States of artefacts by path, worked out once each."""

    def __init__(self, folder: str, rounds: int, first: str):
        self.folder = Path(folder)
        for stamp in self.folder.glob("prompts/shards/*/.stamp.json"):
            count, (path, *_) = read_json(stamp)
            shards.sync(stamp.parent, count, path)  # prompts edited since they were last looked at
        self.manifests = {}
        for path in sorted(self.folder.rglob("*.json")):
            inner = path.relative_to(self.folder).parts[0]
            if inner in ("ledger", "state", "logs", "benchmarks", "report") or "model" in path.parts:
                continue
            value = read_json(path)
            if isinstance(value, dict) and "inputs" in value:
                self.manifests[value.get("artefact", str(path))] = (path, value)
        made = [int(name) for name in map(self.round_of, self.manifests) if name.isdigit()]
        self.expected = [f"{folder}/prompts/eval.parquet"]  # those for training are found through what they made
        for n in range(max([rounds, *made]) + 1):
            self.expected.append(f"{folder}/evaluation/r{n}.json")
            self.expected.append(f"{folder}/checkpoints/r{n}/checkpoint.json" if n else first)

    def round_of(self, name: str) -> str:
        return round_of(name, str(self.folder))

    @functools.cache
    def state(self, name: str) -> tuple[str, str]:
        """(state, why) of an artefact."""
        if not Path(name).exists():
            return "missing", "not there"
        if name not in self.manifests:
            return "sound", ""
        manifest = self.manifests[name][1]
        if fault := self.damage(name, manifest):
            return fault
        for source, recorded in manifest["inputs"].items():
            state, _ = self.state(source)
            if state != "sound":
                return "stale", f"its input {source} is {state}"
            if content_digest(source) != recorded:
                return "stale", f"its input {source} changed since"
        return "sound", ""

    def damage(self, name: str, manifest: dict) -> tuple[str, str] | None:
        if "files" in manifest:
            folder = Path(name).parent / "model"
            if not folder.is_dir():
                return "missing", f"{folder} is not there"
            present = describe(folder)["files"]
            for file in sorted(manifest["files"].keys() | present.keys()):
                if file not in present:
                    return "missing", f"{folder / file} is not there"
                if present[file] != manifest["files"].get(file):
                    return "damaged", f"{folder / file} is not the file that was written"
            moments = Path(name).with_name("moments.pt")
            if "moments" in manifest and (not moments.exists() or file_digest(moments) != manifest["moments"]):
                return "damaged", f"{moments} is not the file that was written"
        elif "sha256" in manifest and file_digest(name) != manifest["sha256"]:
            if self.round_of(name) == "prompts" and not manifest["inputs"]:
                return None  # made-up prompts may be edited by hand: what was made of them tells whether it is stale
            return "damaged", "its bytes are not those that were written"
        return None

    def all(self) -> dict[str, dict[str, tuple[str, str]]]:
        """{round: {artefact: (state, why)}} of what the config expects and all that it was made of.

        Files that nothing of this needs, such as those of another number of shards, are left alone."""
        names, todo = set(), list(self.expected)
        while todo:
            name = todo.pop()
            if name not in names:
                names.add(name)
                todo += self.manifests[name][1]["inputs"] if name in self.manifests else []
        rounds = defaultdict(dict)
        for name in progress(sorted(names), total=len(names), desc="verify", unit="artefact"):
            rounds[self.round_of(name)][name] = self.state(name)
        return rounds


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--run", required=True, help="the run's folder, such as runs/arithmetic")
    parser.add_argument("--rounds", type=int, default=0, help="rounds that the config asks for")
    parser.add_argument("--first", help="checkpoint.json of round 0; in checkpoints/r0 by default")
    args = parser.parse_args()
    if not Path(args.run).is_dir():
        raise BadInput(f"{args.run}: nothing has been made here yet")
    rounds, faults = Walk(args.run, args.rounds, args.first or f"{args.run}/checkpoints/r0/checkpoint.json").all(), 0
    for name in sorted(rounds, key=lambda n: (n.isdigit(), int(n) if n.isdigit() else 0)):
        states = rounds[name]
        worst = min((state for state, _ in states.values()), key=ORDER.index)
        label = "prompts" if name == "prompts" else f"round {name}"
        print(f"{label}: {worst} ({len(states)} artefacts)")
        unsound = {artefact: found for artefact, found in states.items() if found[0] != "sound"}
        follow = [artefact for artefact, (_, why) in unsound.items() if why.startswith("its input") and " is " in why]
        for artefact in unsound.keys() - set(follow):
            print(f"  {unsound[artefact][0]}: {artefact}: {unsound[artefact][1]}")
        if follow:
            print(f"  stale: {len(follow)} that were made of such, first {follow[0]}: {unsound[follow[0]][1]}")
        faults += len(unsound)
    if faults:
        print(f"{faults} artefacts are not sound; `snakemake -n` says what a rerun would make again. Damaged or "
              "missing files below a checkpoint: delete its checkpoint.json and run again.")  # fmt: skip
    return 1 if faults else 0


if __name__ == "__main__":
    run(main)
