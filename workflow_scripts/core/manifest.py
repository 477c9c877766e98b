"""A digest travels with every artefact: `X.pkl` has a small manifest `X.json` beside it.

Manifests hold deterministic fields only (digests of data and inputs, settings, counts), so that equal
work gives equal bytes and a rerun that changes nothing stops there. Seconds and tokens go to `X.usage.json`,
which no rule declares.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from workflow_scripts.core.records import digest, read_json, write_json


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digests(folder: str | Path) -> dict[str, str]:
    """Digest of each file below `folder`, by its name relative to it, sorted."""
    folder = Path(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): file_digest(path) for path in files}


def manifest_of(path: str | Path) -> Path:
    """Where the manifest of an artefact stands: beside it, with the suffix .json."""
    return Path(path).with_suffix(".json")


def content_digest(path: str | Path) -> str:
    """What an input is, for its consumers: a checkpoint's weights and tokenizer, a folder's files, else its bytes."""
    path = Path(path)
    if path.is_dir():
        return digest(folder_digests(path))
    if path.name == "checkpoint.json":
        return read_json(path)["digest"]
    return file_digest(path)


def write_manifest(path: str | Path, inputs: Iterable[str | Path], settings: dict, **fields) -> dict:
    """Write the manifest of the artefact at `path` and return it."""
    manifest = {
        "artefact": str(path),
        "sha256": file_digest(path),
        "inputs": {str(name): content_digest(name) for name in inputs},
        "settings": settings,
        **fields,
    }
    write_json(manifest_of(path), manifest)
    return manifest


def write_usage(path: str | Path, **fields) -> None:
    """What the work cost. Not declared to Snakemake: it differs from run to run."""
    write_json(Path(path).with_suffix(".usage.json"), fields)
