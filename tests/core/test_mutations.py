"""Mutated inputs end in a value or in a sentence: never in a traceback, a hang, or memory out of proportion.

Each test mutates valid inputs by a seeded generator, so that a failure can be repeated. `FUZZ=20000` tries that many.
"""

import copy
import json
import os
import random
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.harness import REPOSITORY, tiny_config
from workflow_scripts.config.load import ConfigError, load
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.pickles import is_plain, read_pickle, write_pickle
from workflow_scripts.core.records import read_records
from workflow_scripts.core.running.ledger import batch_in, line_of
from workflow_scripts.tasks.math.extraction import final_answer
from workflow_scripts.tasks.math.notation import notation
from workflow_scripts.tasks.tabular.extraction import first_object

TRIES = int(os.environ.get("FUZZ", 300))
SPECIAL = [b"", b"\x00", b"\xff\xfe", b"\n", b'"', b"{", b"[" * 50, b"1e999", b"9" * 5000, b"\\ud800", b"NaN", b",,,"]
RECORDS = [{"id": f"q{i}", "question": f"What is {i} + 1?", "answer": str(i + 1), "level": "easy"} for i in range(20)]


def mutated(data: bytes, choose: random.Random) -> bytes:
    """Return bytes with one to four faults: flipped, cut out, doubled, swapped or inserted."""
    changed = bytearray(data)
    for _ in range(choose.randint(1, 4)):
        start = choose.randrange(len(changed) + 1)
        end = min(len(changed), start + choose.choice((1, 2, 8, 64)))
        match choose.randrange(5):
            case 0:
                if start < len(changed):
                    changed[start] ^= 1 << choose.randrange(8)
            case 1:
                del changed[start:end]
            case 2:
                changed[start:start] = changed[start:end] * choose.choice((1, 3))
            case 3:
                changed[start:start] = choose.choice(SPECIAL)
            case _:
                del changed[start:]
    return bytes(changed)


def attempts(name: str, data: bytes) -> list[bytes]:
    """Return mutations of an input, the same each time."""
    choose = random.Random(f"{name}.{zlib.crc32(data)}")
    return [mutated(data, choose) for _ in range(TRIES)]


# ---------------------------------------------------------------- files


def write_csv(path: Any) -> None:
    lines = [",".join(RECORDS[0]), *(",".join(record.values()) for record in RECORDS)]
    path.write_text("\n".join(lines) + "\n")


WRITERS: dict[str, Callable[[Any], Any]] = {
    "a.jsonl": lambda path: path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS)),
    "a.json": lambda path: path.write_text(json.dumps(RECORDS)),
    "a.csv": write_csv,
    "a.parquet": lambda path: pq.write_table(pa.Table.from_pylist(RECORDS), path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_mutated_file_of_records_is_read_or_named(tmp_path, name):
    path = tmp_path / name
    WRITERS[name](path)
    ends = {"read": 0, "named": 0}

    for data in attempts(name, path.read_bytes()):
        path.write_bytes(data)
        try:
            records = list(read_records(path))
            assert all(isinstance(record, dict) for record in records)
            ends["read"] += 1
        except BadInput as error:
            assert str(path) in str(error)
            ends["named"] += 1

    assert min(ends.values()) > 0 or name == "a.parquet"


def test_a_mutated_pickle_is_read_or_named(tmp_path):
    """Those that leave the plain form are rewritten by a process of their own, which takes long; a few of them do."""
    path = tmp_path / "a.pkl"
    write_pickle(path, [record | {"logps": np.arange(3, dtype=np.float32), "mask": [1, 0]} for record in RECORDS])
    foreign = 0

    for data in attempts("pickle", path.read_bytes()):
        foreign += not is_plain(data)
        if not is_plain(data) and foreign > 5:
            continue
        path.write_bytes(data)
        try:
            read_pickle(path)
        except BadInput as error:
            assert str(path) in str(error)


def test_a_mutated_line_of_a_ledger_is_never_read_as_another_batch():
    line = line_of(json.dumps([["key", {"tokens": [1, 2, 3], "logps": [-0.5]}]]))
    assert batch_in(line)
    for data in attempts("ledger", line):
        batch = batch_in(data)
        assert batch is None or batch == batch_in(line) or not data.startswith(b"{")


# ---------------------------------------------------------------- text of a model


ANSWERS = [
    r"So we get \boxed{\frac{1}{2}} and \text{km} $3{,}000$.",
    "#### 1,200.50\nThe answer is -3/4. The result is x = {1, 2} or [0, 1).",
    '```json\n{"a": 1, "b": [1, {"c": null}], "d": "text \\u00e9"}\n``` {\'e\': (1, 2)}',
]


@pytest.mark.parametrize("extract", [final_answer, notation, first_object])
def test_answers_are_extracted_from_any_text(extract):
    for answer in ANSWERS:
        for data in attempts("answer", answer.encode()):
            extract(data.decode(errors="surrogateescape"))
            extract(data.decode(errors="replace"))


# ---------------------------------------------------------------- the config


TEXTS: list[Any] = ["", "x" * 1000, "../..", "\ud800", "null"]
VALUES: list[Any] = [None, True, -1, 0, 10**30, 1e308, *TEXTS, [], [[]], {}, {"": None}]


def paths_in(value: Any, path: tuple = ()) -> list[tuple]:
    """Return the places of all values within a nested config."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in items for place in paths_in(inner, (*path, key)))]


def with_value(config: Any, path: tuple, value: Any) -> Any:
    """Return a config with another value at a place."""
    changed = copy.deepcopy(config)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return changed


@pytest.mark.parametrize("recipe", ["arithmetic", "recommend", "tabular-tiny", "reference"])
def test_a_mutated_config_is_valid_or_its_faults_are_named(recipe):
    choose = random.Random(recipe)
    text = (REPOSITORY / f"recipes/{recipe}.yaml").read_text() if recipe != "arithmetic" else ""
    config = yaml.safe_load(text) if text else tiny_config()
    places = [path for path in paths_in(config) if path]

    for _ in range(TRIES // 4):
        broken = with_value(config, choose.choice(places), choose.choice(VALUES))
        try:
            load(broken)
        except ConfigError as error:
            assert str(error).startswith("config: ")
