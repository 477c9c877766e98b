import json
import pickle

import numpy as np
import pytest

from workflow_scripts.core import records
from workflow_scripts.core.records import BadInput


def test_pickles_of_builtins_and_arrays_come_back(tmp_path):
    value = {"text": "é", "ids": [1, 2], "array": np.arange(3, dtype=np.float32), "scalar": np.float32(0.5), "set": {1}}
    records.write_pickle(tmp_path / "a.pkl", value)
    back = records.read_pickle(tmp_path / "a.pkl")
    assert back["array"].dtype == np.float32 and back["array"].tolist() == [0, 1, 2]
    assert {key: back[key] for key in ("text", "ids", "scalar", "set")} == {
        key: value[key] for key in ("text", "ids", "scalar", "set")
    }


@pytest.mark.parametrize("protocol", range(6))
def test_foreign_globals_are_refused_by_name(tmp_path, protocol):
    class Evil:
        def __reduce__(self):
            import os

            return os.system, ("touch pwned",)

    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps([Evil()], protocol=protocol))
    with pytest.raises(BadInput, match=r"evil\.pkl: refers to (posix|os)\.system"):
        records.read_pickle(path)


def test_equal_values_give_equal_bytes(tmp_path):
    shared = "".join(["sa", "me"])
    records.write_pickle(tmp_path / "a.pkl", [{"key": shared}, {"key": shared}])
    records.write_pickle(tmp_path / "b.pkl", json.loads('[{"key": "same"}, {"key": "same"}]'))
    assert (tmp_path / "a.pkl").read_bytes() == (tmp_path / "b.pkl").read_bytes()


def test_faults_in_files_name_file_and_line(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"a": 1}\n{"a": \n')
    with pytest.raises(BadInput, match=r"p\.jsonl, line 2"):
        list(records.read_records(path))
    (tmp_path / "p.txt").write_text("")
    with pytest.raises(BadInput, match=r"not '\.txt'"):
        list(records.read_records(tmp_path / "p.txt"))
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(BadInput, match=r"t\.parquet: not a Parquet file"):
        list(records.read_records(tmp_path / "t.parquet"))
    (tmp_path / "t.pkl").write_bytes(b"\x80\x04torn")
    with pytest.raises(BadInput, match=r"t\.pkl: not a readable pickle"):
        records.read_pickle(tmp_path / "t.pkl")


def test_a_shard_follows_from_the_id_alone():
    names = [f"id{i}" for i in range(1000)]
    before = {name: records.shard_of(name, 4) for name in names}
    assert {name: records.shard_of(name, 4) for name in names[::2]} == {name: before[name] for name in names[::2]}
    assert all(200 < list(before.values()).count(shard) < 300 for shard in range(4))


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    records.write_text(path, "old")
    with pytest.raises(RuntimeError), records.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_normalised_questions_share_an_id():
    assert records.record_id("What  is\n3?") == records.record_id(" What is 3? ") != records.record_id("What is 4?")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n1,2,3\n", r"line 3: 3 cells, the header has 2"),
        ("a,b\n1\n", r"line 2: 1 cells, the header has 2"),
        ('a,b\n1,"2\n3,4\n', r"line 3: unexpected end of data"),
        ("a,a\n1,2\n", r"two columns are named 'a'"),
    ],
)
def test_a_table_that_was_cut_or_shifted(tmp_path, text, message):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(BadInput, match=rf"bad\.csv.*{message}"):
        list(records.read_records(path))
