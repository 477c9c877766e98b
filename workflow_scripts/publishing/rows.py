"""Write training rows as Parquet files that `datasets.load_dataset` reads, one split per round."""

import json
from pathlib import Path
from typing import Any

from workflow_scripts.core.files import replacing
from workflow_scripts.core.pickles import read_pickle

# Fields of a training row that are published, in this order, with their types in Arrow. Fields that a task adds are
# left out. All splits have all columns, because `datasets` loads only splits with the same ones.
COLUMNS = {
    "uid": "string",
    "question": "string",
    "reference": "string",
    "level": "string",
    "prompt_text": "string",
    "answer": "string",
    "reward": "float64",
    "advantage": "float64",
    "kind": "string",
    "pair": "string",
    "finish": "string",
    "policy": "string",
    "prompt_tokens": "int32s",
    "tokens": "int32s",
    "mask": "int8s",
}

Record = dict[str, Any]


def publish_rows(files: dict[str, Path], folder: Path) -> dict[str, int]:
    """Write the rows of each split to `data/{split}.parquet` in a folder. Return the number of rows by split."""
    counts = {}

    for split, file in files.items():
        rows = [published(row) for row in read_pickle(file)]
        write_rows(folder / f"data/{split}.parquet", rows)
        counts[split] = len(rows)

    return counts


def write_rows(path: Path, rows: list[Record]) -> None:
    """Write rows with the types of COLUMNS as a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = []
    for name, kind in COLUMNS.items():
        is_list = kind.endswith("s")
        item = pa.type_for_alias(kind.removesuffix("s"))
        fields.append((name, pa.list_(item) if is_list else item))

    with replacing(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, pa.schema(fields)), temporary)


def published(row: Record) -> Record:
    """Return the columns of a row. A reference that is no text is given as JSON, so that each column has one type."""
    reference = row.get("reference")
    if reference is not None and not isinstance(reference, str):
        reference = json.dumps(reference, ensure_ascii=False)
    return {column: row.get(column) for column in COLUMNS} | {"reference": reference}
