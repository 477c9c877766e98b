"""Records that cannot be prompts become rejects with a reason, and files that cannot be read are named."""

import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.harness import REPOSITORY
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json, write_json
from workflow_scripts.core.identity import digest
from workflow_scripts.core.records import read_records

GOOD = '{"question": "What is 1 + 2?", "answer": "3"}\n'


def freeze(tmp_path, name: str) -> subprocess.CompletedProcess:
    """Freeze the prompts of a file."""
    settings = json.dumps({"train": {"file": str(tmp_path / name)}})
    command = [sys.executable, "-m", "workflow_scripts.freeze_prompts", "--task", "math", "--settings", settings]
    return subprocess.run(
        [*command, "--output", str(tmp_path / "out")], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )


REJECTED = {
    '{"question": "a?", "answer": Infinity}': "the answer is inf",
    '{"question": "b?", "answer": -1e400}': "the answer is -inf",
    '{"question": "c?", "answer": true}': "the answer is True",
    '{"question": "d?", "answer": NaN}': "no answer",
    '{"question": "e?", "answer": "1", "id": [1]}': "the id is [1]",
    '{"question": "f?", "answer": "1", "id": NaN}': "the id is nan",
    '{"question": "g?", "answer": "1", "id": true}': "the id is True",
    '{"question": "h?", "answer": "1", "level": {"a": 1}}': "the level is {'a': 1}",
    '{"question": "i?", "answer": "1", "level": NaN}': "the level is nan",
    '{"question": "\\u200b \\ufeff", "answer": "1"}': "no question",
    '{"question": "half \\ud800", "answer": "1"}': "half of a character",
    '{"question": "j?", "answer": "\\udc00"}': "half of a character",
    '{"question": "k?", "answer": "1", "id": "\\ud800"}': "half of a character",
    '{"question": "l?", "answer": "1", "level": "\\ud800"}': "half of a character",
}


def test_records_that_cannot_be_prompts_are_rejected_with_a_reason(tmp_path):
    (tmp_path / "train.jsonl").write_text(GOOD + "\n".join(REJECTED) + "\n")
    ended = freeze(tmp_path, "train.jsonl")

    assert ended.returncode == 0, ended.stderr
    reasons = [json.loads(line)["reason"] for line in open(tmp_path / "out" / "rejects.jsonl")]
    assert len(reasons) == len(REJECTED)
    for reason, expected in zip(reasons, REJECTED.values()):
        assert expected in reason


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"question": "a?", "answer": "1", "answer": "2"}', "line 2: not JSON .*'answer' comes twice"),
        ('{"question": "a?", "answer": ' + "9" * 10_000 + "}", "line 2: not JSON .*10000 digits"),
        ("[" * 100_000, "line 2: the JSON is nested too deeply"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path, line, message):
    path = tmp_path / "a.jsonl"
    path.write_text(GOOD + line + "\n")

    with pytest.raises(BadInput, match=message):
        list(read_records(path))


def test_a_json_file_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "a.json").write_text("[" + GOOD + "]", encoding="utf-8-sig")
    assert len(list(read_records(tmp_path / "a.json"))) == 1


def test_a_parquet_file_with_faults_is_named(tmp_path):
    path = tmp_path / "a.parquet"
    table = pa.table({"question": [f"What is {i}?" for i in range(5000)], "answer": [str(i) for i in range(5000)]})

    pq.write_table(table.rename_columns(["answer", "answer"]), path)
    with pytest.raises(BadInput, match=r"a\.parquet: two columns are named 'answer'"):
        list(read_records(path))

    pq.write_table(table, path)
    data = bytearray(path.read_bytes())
    data[200:2000] = b"\xff" * 1800
    path.write_bytes(data)
    with pytest.raises(BadInput, match=r"a\.parquet: not a Parquet file, or a damaged one"):
        list(read_records(path))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (os.mkfifo, "is a pipe or a device"),
        (os.mkdir, "error: "),
        (lambda path: os.symlink(path, path), "Too many levels of symbolic links"),
    ],
)
def test_what_is_no_file_ends_with_a_sentence(tmp_path, make, message):
    make(tmp_path / "a.jsonl")
    ended = freeze(tmp_path, "a.jsonl")

    assert ended.returncode == 65, ended.stderr
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("shards", ["0", "-1", "1000000000", "two"])
def test_numbers_of_shards_that_make_no_sense_are_refused(shards):
    command = [sys.executable, "-m", "workflow_scripts.freeze_prompts", "--task", "math", "--shards", shards]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "is no number from 1 to 10000" in ended.stderr


def test_half_characters_have_a_digest_and_survive_in_json(tmp_path):
    """A model may write half of a character, which no text encoding can store."""
    assert digest("a\ud800") != digest("a")
    write_json(tmp_path / "a.json", {"answer": "a\ud800"})
    assert read_json(tmp_path / "a.json") == {"answer": "a\ud800"}
