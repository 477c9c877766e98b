"""Tell whether files are those that were written: of each artefact by its manifest, of a manifest by its seal.

A stage checks what it reads before it uses it (`check_inputs`), and `workflow_scripts.verify` checks a whole run. The
bytes of records are always compared. Of a model's files, size and modification time are compared if an earlier check
found them sound, because reading tens of gigabytes would cost each job minutes: `.model.checked` beside checkpoint.json
keeps them. `verify --full` reads all bytes.

Frozen prompts may be edited by hand, so they are not checked here. The workflow checks them as prompts.
"""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from workflow_scripts.core.checkpoint import ENGINE
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json, write_json
from workflow_scripts.core.identity import digest
from workflow_scripts.core.running.manifest import file_digest, folder_digests, manifest_of, seal_of

CHECKED = ".model.checked"  # beside checkpoint.json: the state of the model's files when they were found sound
EVICTED = "evicted.json"  # in place of a model that was deleted on purpose: its digest, and the cost of making it again
# Options that name what a stage writes, and that of `verify`, which reports damage instead of ending.
NOT_READ = {"output", "csv", "plot", "histogram", "inference", "grpo", "sft", "folder", "first"}


# ---------------------------------------------------------------- the inputs of a stage


def check_inputs(values: Mapping[str, Any]) -> None:
    """Raise BadInput if a file that a stage's options name is not the one that was written."""
    for name, value in values.items():
        if name not in NOT_READ:
            for path in paths_in(value):
                check(path)


def check(path: Path) -> None:
    """Raise BadInput if a file is not the one that was written."""
    if fault := damage(path):
        raise BadInput(
            f"{path}: {fault}. Nothing was computed from it. Delete it and run again, which makes it anew; `verify` "
            "lists all such files of a run"
        )


def paths_in(value: Any) -> Iterator[Path]:
    """Yield the files that the value of an option names, also as NAME=PATH."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from paths_in(item)
    elif isinstance(value, str | Path) and 0 < len(str(value)) < 4096:
        text = str(value)
        path = Path(text.partition("=")[2] if re.match(r"\w+=", text) else text)
        with contextlib.suppress(OSError, ValueError):  # a text that is no path
            if path.is_file():
                yield path


def damage(path: Path, is_full: bool = False) -> str | None:
    """Return in which way an artefact is not the one that was written, or None.

    A file without a manifest, or outside a run, cannot be judged.
    """
    if path.name == "checkpoint.json":
        return damage_of_checkpoint(path, is_full)
    if path.parent.name == "prompts" or not is_of_run(path):
        return None
    if path.suffix == ".json":
        return damage_of_manifest(path)

    manifest = manifest_of(path)
    if not manifest.is_file():
        return None
    if fault := damage_of_manifest(manifest):
        return f"its manifest {manifest} {fault}"

    value = read_json(manifest)
    if not isinstance(value, dict) or "sha256" not in value or Path(value.get("artefact", "")).name != path.name:
        return None  # of another file
    if file_digest(path) != value["sha256"]:
        return "its bytes are not those that were written"
    return None


def is_of_run(path: Path) -> bool:
    """Return whether a file lies in the folder of a run. Elsewhere, a .json beside a file need not be its manifest."""
    return any((folder / "run.json").is_file() for folder in path.parents)


# ---------------------------------------------------------------- manifests


def damage_of_manifest(path: Path) -> str | None:
    """Return in which way a JSON file with a seal is not the one that was written, or None."""
    try:
        value = read_json(path)
    except (BadInput, UnicodeDecodeError):
        return "is cut off or overwritten: it is not JSON"

    if not isinstance(value, dict) or "inputs" not in value:
        return None
    if "seal" in value and value["seal"] != seal_of(value):
        return "was changed since it was written"
    return misplaced(path, value)


def misplaced(path: Path, manifest: dict[str, Any]) -> str | None:
    """Return of which other artefact of the same run a manifest is, or None."""
    artefact = Path(str(manifest.get("artefact", path)))
    is_of_run = artefact.parts[:2] == path.parts[:2] and path.parts[:1] == ("runs",)
    if is_of_run and artefact.with_suffix("") != path.with_suffix(""):
        return f"is that of {artefact}"

    place = re.search(r"(?:checkpoints|evaluation)/r(\d+)(?:/checkpoint)?\.json$", path.as_posix())
    if place and manifest.get("round", int(place[1])) != int(place[1]):
        return f"is that of round {manifest['round']}"
    return None


def seal_output(path: Path) -> None:
    """Add a seal to the JSON file that a stage has written, if it names its inputs: a checkpoint, an evaluation.

    The files of a checkpoint were read when it was published, so its readers need not do so again.
    """
    if path.suffix != ".json" or not path.is_file():
        return

    value = read_json(path)
    if isinstance(value, dict) and "inputs" in value and value.get("seal") != seal_of(value):
        write_json(path, value | {"seal": seal_of(value)})
    if path.name == "checkpoint.json" and path.with_name("model").is_dir():
        remember(path, value)


# ---------------------------------------------------------------- checkpoints


def damage_of_checkpoint(path: Path, is_full: bool = False) -> str | None:
    """Return in which way a checkpoint is not the one that was published, or None.

    Args:
        path: its checkpoint.json.
        is_full: whether files are read although their size and time did not change since they were found sound.
    """
    if fault := damage_of_manifest(path):
        return fault

    manifest = read_json(path)
    folder = path.with_name("model")
    if evicted(path):
        return "its weights were deleted, because the config's section `keep` does not ask for them"
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict) or not folder.is_dir():
        return None  # what is missing is told by what loads it
    if not is_full and is_known(path, manifest):
        return None

    present = folder_digests(folder)
    for file in sorted(manifest["files"].keys() | present.keys()):
        if file not in present:
            return f"{folder}/{file} is not there"
        if present[file] != manifest["files"].get(file):
            return f"{folder}/{file} is not the file that was written"
    if digest(present) != manifest.get("digest"):
        return "names another policy than its files are"
    for_engines = path.with_name(ENGINE)
    if "engine" in manifest and for_engines.is_dir():  # engines load the model itself if it is not there
        if digest(folder_digests(for_engines)) != manifest["engine"]["digest"]:
            return f"{for_engines} is not what was written"

    remember(path, manifest)
    return None


def evicted(path: Path) -> dict[str, Any] | None:
    """Return the note on a checkpoint whose model was deleted because the config does not ask to keep it, or None."""
    note = path.with_name(EVICTED)
    if path.name != "checkpoint.json" or path.with_name("model").is_dir() or not (note.exists() and path.exists()):
        return None
    value = read_json(note)
    return value if value.get("digest") == read_json(path).get("digest") else None


def states_of(folder: Path) -> dict[str, list[int]]:
    """Return size and time of each file below a folder."""
    states = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            status = path.stat()
            states[str(path.relative_to(folder))] = [status.st_size, status.st_mtime_ns]
    return states


def states_of_weights(path: Path) -> dict[str, list[int]]:
    """Return size and time of each file of a checkpoint's model, and of its weights for engines."""
    for_engines = states_of(path.with_name(ENGINE))
    return states_of(path.with_name("model")) | {f"{ENGINE}/{name}": state for name, state in for_engines.items()}


def is_known(path: Path, manifest: dict[str, Any]) -> bool:
    """Return whether the files of a checkpoint are as they were when they were found sound."""
    try:
        known = json.loads(path.with_name(CHECKED).read_text())
        return known == {"files": states_of_weights(path), "digest": manifest["digest"]}
    except (OSError, ValueError, KeyError):
        return False


def remember(path: Path, manifest: dict[str, Any]) -> None:
    """Keep the state of a checkpoint's files, which were found sound."""
    with contextlib.suppress(OSError):  # a folder that may only be read
        write_json(path.with_name(CHECKED), {"files": states_of_weights(path), "digest": manifest["digest"]})
