"""A checkpoint: `checkpoint.json`, the declared output, and beside it `model/` in Hugging Face format."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json, write_json
from workflow_scripts.core.identity import digest
from workflow_scripts.core.running.manifest import folder_digests

MOMENTS = "moments.pt"  # of the optimizer, beside checkpoint.json, if one process held them
DIVIDED_MOMENTS = "moments"  # a folder in its place, if they were divided over processes
ENGINE = "engine"  # a folder beside `model` with the weights in fewer bits, for engines


def publish(output: str | Path, save: Callable[[Path], Any], fields: dict[str, Any]) -> dict[str, Any]:
    """Save a model into a fresh folder, put it in place with one rename, and write its manifest last.

    `save` receives the folder. The manifest holds `fields` and what `describe` says of the folder. It is returned.
    """
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    fresh = output.parent / f".model.{os.getpid()}"
    place = output.parent / "model"

    try:
        save(fresh)
        remove(place)
        os.replace(fresh, place)
    finally:
        remove(fresh)

    manifest = fields | describe(place)
    write_json(output, manifest)
    return manifest


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, if it is there."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def describe(folder: Path) -> dict[str, Any]:
    """Return {files, digest, tokenizer} of a model's folder.

    `files` holds the digest of each file, `digest` identifies the policy (all files), and `tokenizer` the tokenizer.
    """
    files = folder_digests(folder)
    of_tokenizer = {name: value for name, value in files.items() if any(part in name for part in TOKENIZER_FILES)}
    return {"files": files, "digest": digest(files), "tokenizer": digest(of_tokenizer)}


TOKENIZER_FILES = ("token", "vocab", "merges")  # parts of their names


def model_folder(checkpoint: str | Path) -> str:
    """Return the folder that `from_pretrained` loads."""
    folder = Path(checkpoint).parent / "model"

    if Path(checkpoint).is_dir():
        raise BadInput(f"{checkpoint}: is the folder of a model; give the checkpoint.json beside a folder `model`")
    if not Path(checkpoint).exists():
        raise BadInput(f"{checkpoint}: there is no such checkpoint")
    if not (folder / "config.json").is_file():
        raise BadInput(f"{folder}: no model here, though {checkpoint} exists; delete {checkpoint} and run again")

    return str(folder)


def engine_folder(checkpoint: str | Path, dtype: str) -> str:
    """Return the folder that an engine loads in `dtype`: the weights in that type if they were published, or `model`.

    Both give the same weights, because an engine rounds those of `model` when it loads them.
    """
    folder = Path(checkpoint).with_name(ENGINE)
    is_published = read_json(checkpoint).get("engine", {}).get("dtype") == dtype
    return str(folder) if is_published and (folder / "config.json").is_file() else model_folder(checkpoint)


def moments_beside(checkpoint: str | Path) -> Path:
    """Return the file or folder with the moments of a checkpoint, whether it exists or not."""
    folder = Path(checkpoint).with_name(DIVIDED_MOMENTS)
    return folder if folder.is_dir() else Path(checkpoint).with_name(MOMENTS)


def policy_digest(checkpoint: str | Path) -> str:
    """Return the digest that identifies a checkpoint's policy."""
    return read_json(checkpoint)["digest"]
