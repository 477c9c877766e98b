"""A digest travels with every artefact: beside `X.pkl` stands a small manifest `X.json`.

Manifests hold deterministic fields only (digests of the data and of its inputs, settings, counts), so that equal work
gives equal bytes and a rerun that changes nothing stops there. Seconds, tokens, money and the digest of the code go to
`X.usage.json`, which no rule declares.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from workflow_scripts.core.files import read_json, write_json
from workflow_scripts.core.identity import digest
from workflow_scripts.core.sources import commits_read


def file_digest(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digests(folder: str | Path) -> dict[str, str]:
    """Return the digest of each file below a folder, by its relative name, sorted."""
    folder = Path(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): file_digest(path) for path in files}


def manifest_of(path: str | Path) -> Path:
    """Return the path of an artefact's manifest: the artefact's with the suffix .json."""
    return Path(path).with_suffix(".json")


def content_digest(path: str | Path) -> str:
    """Return what identifies an input for its consumers.

    For a checkpoint that is the digest of weights and tokenizer, for a folder that of its files, else of its bytes.
    """
    path = Path(path)

    if path.is_dir():
        return digest(folder_digests(path))
    if path.name == "checkpoint.json":
        return read_json(path)["digest"]
    return file_digest(path)


def write_manifest(
    path: str | Path, inputs: Iterable[str | Path], settings: Mapping[str, Any], **fields: Any
) -> dict[str, Any]:
    """Write the manifest of the artefact at `path` and return it.

    It names the commits of data sets on the hub that this process has read (`commits`).
    """
    commits = commits_read()
    manifest = {
        "artefact": str(path),
        "sha256": file_digest(path),
        "inputs": {str(name): content_digest(name) for name in inputs},
        "settings": dict(settings),
        **({"commits": commits} if commits else {}),
        **fields,
    }
    manifest["seal"] = seal_of(manifest)
    write_json(manifest_of(path), manifest)
    return manifest


def seal_of(manifest: Mapping[str, Any]) -> str:
    """Return the digest of all fields of a manifest but the seal itself, by which later changes are found."""
    fields = {key: value for key, value in manifest.items() if key != "seal"}
    return digest(json.loads(json.dumps(fields)))


def write_usage(path: str | Path, **fields: Any) -> None:
    """Write what the work cost and which code did it. Snakemake does not see this file: it differs from run to run."""
    write_json(Path(path).with_suffix(".usage.json"), fields)
