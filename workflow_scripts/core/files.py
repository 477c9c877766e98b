"""Files that are put in place whole: text, JSON, JSON lines, Parquet and saved `datasets`."""

import contextlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from workflow_scripts.core.errors import BadInput

HALF_CHARACTERS = "backslashreplace"  # UTF-8 has no bytes for a lone surrogate; in JSON, "\\ud800" stands for it


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder that becomes `path` in one rename if the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")

    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file."""
    with replacing(path) as temporary:
        temporary.write_text(text, errors=HALF_CHARACTERS)


def write_json(path: str | Path, value) -> None:
    """Write `value` as indented JSON with sorted keys."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file. Raise BadInput if it holds something else."""
    return parse_json(str(path), Path(path).read_text(encoding="utf-8-sig"))


def parse_json(where: str, text: str) -> Any:
    """Return the value of a JSON text. Raise BadInput, beginning with `where`, if it is no JSON or no key is unique."""
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise BadInput(f"{where}: the JSON is nested too deeply to be data") from None
    except ValueError as error:  # also numbers of more than 4300 digits
        raise BadInput(f"{where}: not JSON ({error})") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object's keys and values. With a key that comes twice, readers disagree on which value counts."""
    value = dict(pairs)
    if len(value) < len(pairs):
        repeated = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {repeated!r} comes twice in one object")
    return value


def write_jsonl(path: str | Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object per line."""
    with replacing(path) as temporary, open(temporary, "w", errors=HALF_CHARACTERS) as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def write_rejects(output: str | Path, rejects: Iterable[Mapping[str, Any]]) -> None:
    """Write the rejects of the artefact X.pkl beside it, as X.rejects.jsonl."""
    write_jsonl(Path(output).with_suffix(".rejects.jsonl"), rejects)


def write_parquet(path: str | Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write records as a Parquet file; lists and dicts become columns of lists and structs.

    A field that only some records have is null in the others.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = list(records)
    columns = dict.fromkeys(name for row in rows for name in row)  # PyArrow looks at the first row only
    with replacing(path) as temporary:
        pq.write_table(pa.Table.from_pylist([{name: row.get(name) for name in columns} for row in rows]), temporary)


def write_dataset(folder: str | Path, **splits: list[dict[str, Any]]) -> None:
    """Write a DatasetDict for `datasets.load_from_disk`."""
    import datasets

    datasets.disable_progress_bars()
    folder = Path(folder)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    temporary.parent.mkdir(parents=True, exist_ok=True)

    try:
        saved: Any = {name: datasets.Dataset.from_list(rows) for name, rows in splits.items()}
        datasets.DatasetDict(saved).save_to_disk(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
