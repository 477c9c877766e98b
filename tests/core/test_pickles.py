"""Pickles hold builtin types and arrays, equal values give equal bytes, and nothing else is read."""

import json
import os
import pickle
import resource

import numpy as np
import pytest

from tests.core.hostile_pickles import HOSTILE
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.pickles import read_pickle, write_pickle


def test_pickles_of_builtins_and_arrays_come_back(tmp_path):
    value = {"text": "é", "ids": [1, 2], "array": np.arange(3, dtype=np.float32), "scalar": np.float32(0.5), "set": {1}}
    write_pickle(tmp_path / "a.pkl", value)

    back = read_pickle(tmp_path / "a.pkl")

    assert back["array"].dtype == np.float32
    assert back["array"].tolist() == [0, 1, 2]
    for key in ("text", "ids", "scalar", "set"):
        assert back[key] == value[key]


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_other_programs_come_back(tmp_path, protocol):
    """They share objects, and hold arrays and sets in the way of their protocol."""
    shared = {"level": "hard", "set": {1}, "frozen": frozenset("a"), "bytes": [b"", b"x"], "none": None}
    numbers = np.arange(6, dtype=">f8").reshape(2, 3)
    arrays = {"plain": numbers, "columns": np.asfortranarray(numbers), "part": numbers[:, 1], "text": np.array(["é"])}
    value = [
        {"uid": uid, "shared": shared, **arrays, "scalar": np.float32(0.5), "empty": np.empty((0, 2))} for uid in "ab"
    ]
    path = tmp_path / "other.pkl"
    path.write_bytes(pickle.dumps(value, protocol=protocol))

    for record, expected in zip(read_pickle(path), value):
        for key in (*arrays, "empty"):
            np.testing.assert_array_equal(record[key], expected[key], strict=True)
        for key in ("uid", "shared", "scalar"):
            assert record[key] == expected[key]


@pytest.mark.parametrize("attack", HOSTILE)
def test_hostile_pickles_are_refused(tmp_path, attack, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "hostile.pkl"
    path.write_bytes(HOSTILE[attack])

    with pytest.raises(BadInput, match=r"hostile\.pkl: \w+"):
        read_pickle(path)
    assert os.listdir(tmp_path) == ["hostile.pkl"]


def test_hostile_pickles_are_many_and_take_little_memory():
    assert len(HOSTILE) >= 60
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        assert resource.getrusage(who).ru_maxrss < 1.5 * 2**20  # KiB


def test_values_that_stand_in_two_places_do_not_multiply(tmp_path):
    """A file may only hold what its own bytes say."""
    path = tmp_path / "shared.pkl"
    big = ["x" * 1000] * 1000
    path.write_bytes(pickle.dumps([big] * 100))

    value = read_pickle(path)
    assert value[0] == value[99] == big
    assert value[0] is not value[99]


def test_equal_values_give_equal_bytes(tmp_path):
    shared = "".join(["sa", "me"])
    write_pickle(tmp_path / "a.pkl", [{"key": shared}, {"key": shared}])
    write_pickle(tmp_path / "b.pkl", json.loads('[{"key": "same"}, {"key": "same"}]'))

    assert (tmp_path / "a.pkl").read_bytes() == (tmp_path / "b.pkl").read_bytes()


def test_a_pickle_that_was_cut_off_is_named(tmp_path):
    (tmp_path / "t.pkl").write_bytes(b"\x80\x04torn")

    with pytest.raises(BadInput, match=r"t\.pkl: not a readable pickle"):
        read_pickle(tmp_path / "t.pkl")
