"""Precomputed vectors of items, from a file or a folder.

.npy             an array [items, width], in the order of the file `recommend.catalogue`
.npz             `ids` and `vectors`, an array each
.parquet, .json  records with `id` (or `title`) and `vector` (or `embedding`); also .jsonl
.json            an object of vectors by id
a folder         {id}.json for each item, an array of numbers: TART's save/embed/item/{kg_dataset}/

An id is the item's `id` in the catalogue's file, or its title.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json
from workflow_scripts.core.identity import normalise
from workflow_scripts.core.records import read_records
from workflow_scripts.tasks.recommend.embedders import unit_length
from workflow_scripts.tasks.recommend.items import Item

NUMPY = (".npy", ".npz")
SHOWN = 3  # ids in a message


def read_vectors(path: str, items: list[Item]) -> np.ndarray:
    """Return the vectors of items at unit length: [items, width], float32.

    Raise BadInput for an item without a vector, and for vectors that differ in width.
    """
    if Path(path).suffix == ".npy":
        vectors = _load(path)
        if vectors.ndim != 2 or len(vectors) != len(items):
            raise BadInput(
                f"{path}: an array of shape {list(vectors.shape)}, but the catalogue has {len(items)} items; give one "
                "row per item in the catalogue's order, or vectors with ids (.npz, .parquet, .json or a folder)"
            )
        return unit_length(vectors, [item["title"] for item in items], path)

    names = [_names(item) for item in items]
    wanted = {name for pair in names for name in pair}
    by_id = {str(name): vector for name, vector in _pairs(path, wanted.__contains__)}
    chosen = [next((by_id[name] for name in pair if name in by_id), None) for pair in names]
    missing = [pair[0] for pair, vector in zip(names, chosen) if vector is None]
    if missing:
        raise BadInput(
            f"{path}: no vector for {len(missing)} of {len(items)} items ({', '.join(missing[:SHOWN])}…); an item is "
            "known by its `id` in the catalogue's file, or by its title"
        )

    arrays = [_as_array(path, pair[0], vector) for pair, vector in zip(names, chosen)]
    widths = {len(array): pair[0] for pair, array in zip(names, arrays)}
    if len(widths) > 1:
        listed = ", ".join(f"{width} for {name}" for width, name in sorted(widths.items()))
        raise BadInput(f"{path}: the vectors differ in width: {listed}")

    return unit_length(np.stack(arrays), [pair[0] for pair in names], path)


def _names(item: Item) -> tuple[str, ...]:
    """Return what an item may be called in a file of vectors: its id, if it has one, and its title."""
    own = item["attributes"].get("id")
    return (own, item["title"]) if own else (item["title"],)


def _pairs(path: str, is_wanted: Callable[[str], bool]) -> Iterator[tuple[str, Any]]:
    """Yield (id, vector). Files of a folder that no item needs are not read."""
    if Path(path).is_dir():
        for file in sorted(Path(path).glob("*.json")):
            if is_wanted(file.stem):
                yield file.stem, read_json(file)
        return

    if Path(path).suffix == ".npz":
        arrays = _load(path)
        missing = [name for name in ("ids", "vectors") if name not in arrays]
        if missing or len(arrays["ids"]) != len(arrays["vectors"]):
            raise BadInput(f"{path}: should hold `ids` and as many `vectors`, found {', '.join(arrays)}")
        yield from zip(map(str, arrays["ids"]), arrays["vectors"])
        return

    if Path(path).suffix == ".json":
        value = _read_object(path)
        if isinstance(value, dict):
            yield from ((_name(name), vector) for name, vector in value.items())
            return

    for number, record in enumerate(read_records(path), 1):
        name = record.get("id", record.get("title"))
        vector = record.get("vector", record.get("embedding"))
        if name is None or vector is None:
            raise BadInput(
                f"{path}, record {number}: needs `id` or `title`, and `vector` or `embedding`; "
                f"found {', '.join(record)}"
            )
        yield _name(str(name)), vector


def _name(name: str) -> str:
    return normalise(name)


def _read_object(path: str) -> Any:
    """Return the value of a JSON file, or None if it has one object per line."""
    try:
        return json.loads(Path(path).read_text())
    except json.JSONDecodeError:
        return None


def _load(path: str) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise BadInput(f"{path}: not an array of numbers that NumPy saved ({error})") from None


def _as_array(path: str, name: str, vector: Any) -> np.ndarray:
    try:
        array = np.asarray(vector, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.empty((0, 0))
    if array.ndim != 1 or not len(array):
        raise BadInput(f"{path}: the vector of {name!r:.80} should be a list of numbers, found {vector!r:.60}")
    return array
