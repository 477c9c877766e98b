"""A checkpoint: `checkpoint.json`, the declared output, and `model/` beside it in Hugging Face format."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from workflow_scripts.core.manifest import folder_digests
from workflow_scripts.core.records import BadInput, digest, read_json, write_json


def publish(output: str | Path, save: Callable[[Path], None], fields: dict) -> dict:
    """save() a model into a fresh folder, put it in place with one rename, and write its manifest last."""
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    fresh, place = output.parent / f".model.{os.getpid()}", output.parent / "model"
    remove(fresh)
    save(fresh)
    remove(place)
    os.replace(fresh, place)
    manifest = fields | describe(place)
    write_json(output, manifest)
    return manifest


def remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def describe(folder: Path) -> dict:
    """{files, digest, tokenizer}: `digest` is the policy's, over all files; `tokenizer` over its own alone."""
    files = folder_digests(folder)
    tokens = {name: value for name, value in files.items() if "token" in name or "vocab" in name or "merges" in name}
    return {"files": files, "digest": digest(files), "tokenizer": digest(tokens)}


def model_folder(checkpoint: str | Path) -> str:
    """The folder that from_pretrained loads."""
    folder = Path(checkpoint).parent / "model"
    if not (folder / "config.json").is_file():
        raise BadInput(f"{folder}: no model here, though {checkpoint} exists; delete {checkpoint} and run again")
    return str(folder)


def policy_digest(checkpoint: str | Path) -> str:
    return read_json(checkpoint)["digest"]
