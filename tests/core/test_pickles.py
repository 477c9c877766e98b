"""Pickles hold builtin types and arrays, equal values give equal bytes, and nothing else is read."""

import json
import os
import pickle

import numpy as np
import pytest

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.pickles import read_pickle, write_pickle


class Evil:
    """An object whose pickle runs a command when it is loaded."""

    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_pickles_of_builtins_and_arrays_come_back(tmp_path):
    value = {"text": "é", "ids": [1, 2], "array": np.arange(3, dtype=np.float32), "scalar": np.float32(0.5), "set": {1}}
    write_pickle(tmp_path / "a.pkl", value)

    back = read_pickle(tmp_path / "a.pkl")

    assert back["array"].dtype == np.float32
    assert back["array"].tolist() == [0, 1, 2]
    for key in ("text", "ids", "scalar", "set"):
        assert back[key] == value[key]


@pytest.mark.parametrize("protocol", range(6))
def test_foreign_globals_are_refused_by_name(tmp_path, protocol):
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps([Evil()], protocol=protocol))

    with pytest.raises(BadInput, match=r"evil\.pkl: refers to (posix|os)\.system"):
        read_pickle(path)


def test_equal_values_give_equal_bytes(tmp_path):
    shared = "".join(["sa", "me"])
    write_pickle(tmp_path / "a.pkl", [{"key": shared}, {"key": shared}])
    write_pickle(tmp_path / "b.pkl", json.loads('[{"key": "same"}, {"key": "same"}]'))

    assert (tmp_path / "a.pkl").read_bytes() == (tmp_path / "b.pkl").read_bytes()


def test_a_pickle_that_was_cut_off_is_named(tmp_path):
    (tmp_path / "t.pkl").write_bytes(b"\x80\x04torn")

    with pytest.raises(BadInput, match=r"t\.pkl: not a readable pickle"):
        read_pickle(tmp_path / "t.pkl")
