"""Records on disk: their ids, their shards and the files they live in."""

import contextlib
import csv
import hashlib
import io
import json
import os
import pickle
import shutil
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

# All that a pickle of builtin types and NumPy arrays refers to, under NumPy 1 and 2.
ALLOWED_GLOBALS = {
    (f"{package}.{module}", name)
    for package in ("numpy.core", "numpy._core")
    for module, name in (
        ("multiarray", "_reconstruct"),
        ("multiarray", "scalar"),
        ("numeric", "_frombuffer"),
    )
} | {("numpy", "ndarray"), ("numpy", "dtype")}


class BadInput(Exception):
    """An input that a person must mend; its text names file, record, what was found and what is right."""


def faults_of(error) -> str:
    """What a pydantic.ValidationError found, in one line."""
    return "; ".join(f"{'.'.join(map(str, one['loc'])) or 'all of it'}: {one['msg']}" for one in error.errors())


class RestrictedUnpickler(pickle.Unpickler):
    """Reads builtin types and NumPy arrays; a pickle from elsewhere is data, not code."""

    def find_class(self, module: str, name: str):
        if (module, name) not in ALLOWED_GLOBALS:
            raise BadInput(f"refers to {module}.{name}; only builtin types and NumPy arrays are read from pickles")
        return super().find_class(module, name)


def normalise(text: str) -> str:
    """NFKC with white space folded: texts that read the same are the same."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def digest(value) -> str:
    """16 hex digits of the SHA-256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def record_id(text: str) -> str:
    """The id of a record that comes without one: a digest of its normalised prompt."""
    return hashlib.sha256(normalise(text).encode()).hexdigest()[:16]


def shard_of(record: str, shards: int) -> int:
    """A record's shard follows from its id alone, so adding or deleting others never moves it."""
    return zlib.crc32(str(record).encode()) % shards


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path in the same folder that becomes `path` in one rename when the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text)


def write_json(path: str | Path, value) -> None:
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: str | Path):
    try:
        return json.loads(Path(path).read_text())
    except json.JSONDecodeError as error:
        raise BadInput(f"{path}: not JSON ({error})") from None


def write_pickle(path: str | Path, value) -> None:
    """Equal values give equal bytes: without a memo, object identity leaves no trace."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        pickler = pickle.Pickler(file, protocol=5)
        pickler.fast = True
        pickler.dump(value)


def read_pickle(path: str | Path):
    """Read builtin types and NumPy arrays; anything else is refused with file and name."""
    try:
        return RestrictedUnpickler(io.BytesIO(Path(path).read_bytes())).load()
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None
    except (pickle.UnpicklingError, EOFError, AttributeError, ValueError, IndexError) as error:
        raise BadInput(f"{path}: not a readable pickle ({error})") from None


def read_records(path: str | Path) -> Iterator[dict]:
    """Stream records from .jsonl, .json (a list), .csv, .tsv, .parquet or .pkl (a list); errors name the line."""
    path = Path(path)
    try:
        yield from _streamed(path)
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 text ({error})") from None


def _streamed(path: Path) -> Iterator[dict]:
    match path.suffix:
        case ".jsonl":
            with open(path, encoding="utf-8-sig") as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield _parsed(path, number, line)
        case ".json":
            yield from _listed(path, read_json(path))
        case ".csv" | ".tsv":
            yield from _separated(path, "," if path.suffix == ".csv" else "\t")
        case ".parquet":
            yield from _parquet(path)
        case ".pkl":
            yield from _listed(path, read_pickle(path))
        case other:
            raise BadInput(
                f"{path}: records are read from .jsonl, .json, .csv, .tsv, .parquet and .pkl files, not {other!r}"
            )


def _separated(path: Path, delimiter: str) -> Iterator[dict]:
    csv.field_size_limit(2**31 - 1)  # an answer may be longer than the module's 128 KiB
    with open(path, newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            header = next(lines, [])
            if twice := [name for name, count in Counter(header).items() if count > 1]:
                raise BadInput(f"{path}: two columns are named {twice[0]!r}")
            for cells in lines:
                if cells and len(cells) != len(header):
                    raise BadInput(
                        f"{path}, line {lines.line_num}: {len(cells)} cells, the header has {len(header)} "
                        "(text with separators needs quotes)"
                    )
                if cells:
                    yield dict(zip(header, cells))
        except csv.Error as error:
            raise BadInput(f"{path}, line {lines.line_num}: {error} (a quote that is not closed?)") from None


def _parquet(path: Path) -> Iterator[dict]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise BadInput(f"{path}: not a Parquet file ({error})") from None
    for group in range(file.num_row_groups):  # all at once, pyarrow would hold the whole file
        for batch in file.iter_batches(batch_size=1024, row_groups=[group]):
            yield from batch.to_pylist()


def _parsed(path: Path, number: int, line: str) -> dict:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise BadInput(f"{path}, line {number}: not JSON ({error})") from None
    if not isinstance(record, dict):
        raise BadInput(f"{path}, line {number}: expected an object, found {type(record).__name__}")
    return record


def _listed(path: Path, value) -> list[dict]:
    if not isinstance(value, list) or not all(isinstance(record, dict) for record in value):
        raise BadInput(f"{path}: expected a list of records, found {type(value).__name__}")
    return value


def write_parquet(path: str | Path, records: Iterable[dict]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with replacing(path) as temporary:
        pq.write_table(pa.Table.from_pylist(list(records)), temporary)


def write_jsonl(path: str | Path, records: Iterable[dict]) -> None:
    with replacing(path) as temporary, open(temporary, "w") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def write_dataset(folder: str | Path, **splits: list[dict]) -> None:
    """A DatasetDict for `datasets.load_from_disk`, put in place whole."""
    import datasets

    datasets.disable_progress_bars()
    folder = Path(folder)
    whole = folder.with_name(f".{folder.name}.{os.getpid()}")
    whole.parent.mkdir(parents=True, exist_ok=True)
    try:
        made = {name: datasets.Dataset.from_list(rows) for name, rows in splits.items()}
        datasets.DatasetDict(made).save_to_disk(whole)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(whole, folder)
    finally:
        shutil.rmtree(whole, ignore_errors=True)


def write_rejects(output: str | Path, rejects: list[dict]) -> None:
    """Beside X.pkl, as X.rejects.jsonl."""
    write_jsonl(Path(output).with_suffix(".rejects.jsonl"), rejects)


def conserve(stage: str, rows_in: int, rows_out: int, rejects: int) -> None:
    """Every record stage ends here: what came in went out or was rejected with a reason."""
    if rows_in != rows_out + rejects:
        raise AssertionError(f"{stage}: {rows_in} rows in, {rows_out} out and {rejects} rejected")
