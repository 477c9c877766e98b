"""Read records from local files, folders of `datasets`, and data sets on the Hugging Face hub.

Every task reads its prompts, and every run its cold start and existing rows, through `read_source`.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.records import READABLE, read_records

Record = dict[str, Any]

COMMIT = re.compile(r"[0-9a-f]{40}")
SAVED = ("state.json", "dataset_dict.json")  # files of a folder that `save_to_disk` wrote


_commits: dict[str, str] = {}  # data set on the hub → the commit of it that this process has read


def is_file(name: str) -> bool:
    """Return whether a name is that of a file, and not of a folder or of a data set on the hub."""
    return Path(name).suffix in READABLE and not os.path.isdir(name)


def is_on_hub(name: str) -> bool:
    """Return whether a name is that of a data set on the hub: nothing here, and not named as a file would be."""
    return not (os.path.exists(name) or name.endswith((*READABLE, ".py")) or re.match(r"[/.~]", name))


def state_of(name: str) -> list:
    """Return name, size and time of a file, or of all files in a folder: they change when the data is written."""
    path = Path(name)
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def records_of(source: Mapping[str, Any]) -> Iterator[Record]:
    """Stream the records of a section of the config that has `file`, and may have `subset`, `split` and `revision`."""
    yield from read_source(source["file"], source.get("split") or "train", source.get("revision"), source.get("subset"))


def read_source(
    name: str, split: str = "train", revision: str | None = None, subset: str | None = None
) -> Iterator[Record]:
    """Stream the records of a file, of a folder that `datasets` saved or that is laid out like the hub, or of the hub.

    Raise BadInput if it is missing, unreachable or unreadable.
    """
    if os.path.lexists(name) and not os.path.isdir(name):
        yield from read_records(name)
        return
    if not (os.path.isdir(name) or is_on_hub(name)):
        raise BadInput(f"there is no file {name}")

    yield from _load_dataset(name, subset, split, revision)


def _load_dataset(name: str, subset: str | None, split: str, revision: str | None) -> Any:
    import datasets

    datasets.disable_progress_bars()

    try:
        loaded: Any
        if any((Path(name) / file).is_file() for file in SAVED):
            loaded = datasets.load_from_disk(name)
        else:
            loaded = datasets.load_dataset(name, subset, revision=revision)
    except ValueError as error:  # such as a subset that is missing or unknown
        raise BadInput(f"{name}: the data set cannot be loaded ({one_line(error)})") from None
    except OSError as error:
        hint = hub_hint("data set") if is_on_hub(name) else "the folder should hold Parquet, JSON or CSV files"
        raise BadInput(f"{name}: the data set cannot be loaded ({one_line(error)}); {hint}") from None

    if isinstance(loaded, datasets.DatasetDict):
        if split not in loaded:
            raise BadInput(f"{name}: there is no split {split!r}; splits are {', '.join(map(str, loaded))}")
        loaded = loaded[split]

    if is_on_hub(name) and (commit := _commit_of(loaded)):
        _commits[f"{name}@{revision}" if revision else name] = commit

    return loaded


def _commit_of(dataset: Any) -> str | None:
    """Return the commit of a data set that was loaded from the hub, which `datasets` names its cache folder after."""
    for file in dataset.cache_files:
        folder = Path(file["filename"]).parent.name
        if COMMIT.fullmatch(folder):
            return folder
    return None


def commits_read() -> dict[str, str]:
    """Return the commits of the data sets on the hub that this process has read, by name (name@revision)."""
    return dict(sorted(_commits.items()))


def hub_hint(what: str) -> str:
    """Return what to do if something on the Hugging Face hub cannot be loaded."""
    return (
        f"if this machine has no internet access, download the {what} on one that has, into the same HF_HOME, and set "
        f"HF_HUB_OFFLINE=1 here; a private or gated {what} needs HF_TOKEN; a local one needs a path that exists"
    )


def one_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return str(error).strip().split("\n")[0] or type(error).__name__
