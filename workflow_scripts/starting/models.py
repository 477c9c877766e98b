"""Look into a model, in a folder or on the hub, without loading it: its chat template, its size, its context."""

import re
from dataclasses import dataclass
from pathlib import Path

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json
from workflow_scripts.core.running import hub

CONFIG = "config.json"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
CHAT_TEMPLATES = ("chat_template.jinja", "chat_template.json")  # else it stands in tokenizer_config.json


@dataclass(frozen=True)
class ModelFacts:
    """What a first config must know about a model. None: unknown, and for the size also: not needed."""

    path: str
    has_chat_template: bool | None
    context: int | None  # tokens
    parameters: str | None  # as in 1.5e9, for a model on the hub: sizes the requests to a cluster
    is_size_by_name: bool = False


def facts_of(path: str, may_be_unknown: bool) -> ModelFacts:
    """Return the facts about a model. Raise BadInput if there is none at this path.

    Args:
        path: a folder, or a name on the hub.
        may_be_unknown: go on without facts if the hub cannot be reached.
    """
    if Path(path).exists():
        return _of_folder(Path(path))
    if path.count("/") != 1 or path.startswith((".", "/", "~")):
        raise BadInput(f"model: there is no folder {path}, and a name on the hub would be owner/name")

    if fault := hub.fault("model", path):
        if not may_be_unknown:
            raise BadInput(f"{fault}. To go on without a look into it, give --template chat or --template deepseek")
        return ModelFacts(path, None, None, size_by_name(path), is_size_by_name=True)

    is_cached = hub.is_cached(path)  # then the network is left alone, which may not be there
    config = _from_hub(path, CONFIG, is_cached)
    tokenizer_config = _from_hub(path, "tokenizer_config.json", is_cached)
    has_template = any(_from_hub(path, name, is_cached) for name in CHAT_TEMPLATES) or _names_template(tokenizer_config)
    size = None if is_cached else _size_on_hub(path)
    return ModelFacts(path, has_template, _context(config), size or size_by_name(path), is_size_by_name=not size)


def _of_folder(folder: Path) -> ModelFacts:
    if not folder.is_dir():
        raise BadInput(f"model: {folder} is a file; a model is a folder with {CONFIG}, weights and a tokenizer")
    if (folder / "adapter_config.json").is_file() and not (folder / CONFIG).is_file():
        raise BadInput(f"model: {folder} holds an adapter only; merge it into its model (peft: merge_and_unload)")
    if not (folder / CONFIG).is_file():
        below = sorted(path.parent for path in folder.glob(f"*/{CONFIG}"))
        hint = f"; did you mean {below[0]}?" if below else ""
        raise BadInput(f"model: {folder} has no {CONFIG}, so it is no model that from_pretrained loads{hint}")
    if not any((folder / name).is_file() for name in TOKENIZER):
        raise BadInput(f"model: {folder} has no tokenizer ({', '.join(TOKENIZER)}); copy that of its base model there")
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
        raise BadInput(f"model: {folder} has no weights (*.safetensors); is the download complete?")

    return ModelFacts(str(folder), has_chat_template(folder), _context(folder / CONFIG), None)


def has_chat_template(folder: Path) -> bool:
    """Return whether the model in a folder has a chat template; False if there is no such folder."""
    if any((folder / name).is_file() for name in CHAT_TEMPLATES):
        return True
    return _names_template(folder / "tokenizer_config.json")


def _names_template(file: Path | None) -> bool:
    """Return whether a tokenizer_config.json holds a chat template."""
    return file is not None and file.is_file() and bool(read_json(file).get("chat_template"))


def _context(file: Path | None) -> int | None:
    """Return the longest sequence of a model, by its config.json."""
    return read_json(file).get("max_position_embeddings") if file is not None else None


def _from_hub(name: str, file: str, from_cache: bool) -> Path | None:
    """Return a file of a model on the hub, from the cache or downloaded; None if there is none of this name."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError  # also raised for what the cache lacks

    try:
        return Path(hf_hub_download(name, file, cache_dir=hub.cache_folder(), local_files_only=from_cache))
    except EntryNotFoundError:
        return None


def _size_on_hub(name: str) -> str | None:
    """Return the number of parameters that the hub states; None if it states none or cannot be reached."""
    from huggingface_hub import get_safetensors_metadata

    try:
        return _rounded(sum(get_safetensors_metadata(name).parameter_count.values()))
    except Exception:  # its weights have another format, or there is no network: the size is needed on clusters only
        return None


def size_by_name(name: str) -> str | None:
    """Return the number of parameters that a model's name states, as in Qwen2.5-1.5B-Instruct."""
    sizes = re.findall(r"(?<![\w.])(\d+(?:\.\d+)?)([bm])(?![a-z])", name.lower())
    if not sizes:
        return None
    number, unit = sizes[-1]
    return f"{float(number):g}e{9 if unit == 'b' else 6}"


def _rounded(parameters: int) -> str:
    """Return a number of parameters with two digits, as in 1.5e9."""
    return f"{parameters / 1e9:.2g}e9"
