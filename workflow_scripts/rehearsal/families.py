"""Describe a model without its weights: its config, its tokenizer and where its answers end.

A model in a folder, in the cache of the Hugging Face hub, or on the hub tells this itself. For the model families of
the recipes there are descriptions in `families/`, for machines without a network.
"""

import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.running.cli import say

FOLDER = Path(__file__).with_name("families")
SMALL_FILES = ["*.json", "*.jinja", "*.model", "*.txt"]  # what a model's folder holds beside its weights

Description = dict[str, Any]


def own_files(path: str, revision: str | None) -> Path | None:
    """Return a folder with the config and the tokenizer of a model, or None if they cannot be had here.

    The folder is the model's own, or that of the hub's cache. What the cache lacks is downloaded, without the weights.
    """
    if Path(path).is_dir():
        return Path(path)

    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    for is_local in (True, False):
        try:
            folder = Path(
                snapshot_download(path, revision=revision, allow_patterns=SMALL_FILES, local_files_only=is_local)
            )
        except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError, ValueError):
            continue
        if (folder / "config.json").is_file() and (folder / "tokenizer_config.json").is_file():
            return folder

    return None


def description_of(path: str) -> Description:
    """Return the shipped description of a model's family.

    It has `config` (of the architecture), `tokenizer` (class, special tokens), `ends` (the tokens that end an answer)
    and, if the family has one, `chat_template` (the text). Raise BadInput if no description fits.
    """
    fitting = []
    for file in sorted(FOLDER.glob("*.json")):
        description = json.loads(file.read_text())
        fitting += [(len(pattern), file, description) for pattern in description["models"] if fnmatch(path, pattern)]

    if not fitting:
        raise BadInput(
            f"model.path: {path} is neither here nor in the cache of the hub, the hub cannot be reached, and there is "
            f"no description of it in {FOLDER}. Download its small files where there is a network "
            f"(hf download {path} --exclude '*.safetensors' '*.bin' '*.pth'), or name a folder that has them"
        )

    _, file, description = max(fitting, key=lambda item: item[0])  # the longest pattern is the most specific one
    say(f"{path}: made from the description {file.name}, because its own files cannot be had here")

    for pattern, changes in description.get("variants", {}).items():
        if fnmatch(path, pattern):
            description["config"] |= changes
    if template := description.get("chat_template"):
        description["chat_template"] = (FOLDER / template).read_text()

    return description
