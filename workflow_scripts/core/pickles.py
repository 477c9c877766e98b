"""Pickles of builtin types and NumPy arrays. Reading one runs nothing that its writer chose.

`write_pickle` writes a plain form: every value where it stands, without a memo, and arrays as their type, shape and
bytes. `read_pickle` checks that a file has this form before it unpickles anything. Each instruction of the plain form
takes part of the file, so that a file cannot ask for more memory than a multiple of its size, and no object stands in
two places. A pickle in another form, from another program, is first rewritten by a process with limits of its own
(core/foreign_pickles.py).
"""

import io
import math
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import replacing

# Instructions (https://docs.python.org/3/library/pickletools.html): of a fixed length, and short text and bytes, whose
# length stands in one byte. Regular expressions know no lengths, hence one alternative for each.
FIXED = rb"[N\x88\x89\]}\)\x8f(aesutRb\x85\x86\x87\x90\x91\x93.]|K.|M.{2}|J.{4}|G.{8}|\x80.|\x95.{8}"
SHORT = b"|".join(re.escape(bytes([length])) + b".{%d}" % length for length in range(256))
PLAIN = re.compile(rb"(?:%b|[\x8cC\x8a](?:%b))*+" % (FIXED, SHORT), re.DOTALL)
LONG = {ord("X"): 4, ord("B"): 4, 0x8D: 8, 0x8E: 8, 0x96: 8}  # text and bytes: the bytes that hold their length

PLAIN_TYPE = re.compile(r"[<>|=]?(?:[?biufc]\d{0,2}|[SU]\d{1,9})")
LIKELY_TYPES = "builtin types and NumPy arrays of numbers or text"


def write_pickle(path: str | Path, value) -> None:
    """Write `value` so that equal values give equal bytes: without a memo, object identity leaves no trace."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        dump(value, file)


def dump(value: Any, file: Any) -> None:
    """Write `value` to an open file in the plain form."""
    pickler = pickle.Pickler(file, protocol=5)
    pickler.fast = True
    pickler.dump(value)


def read_pickle(path: str | Path) -> Any:
    """Read builtin types and NumPy arrays.

    Raises:
        BadInput: if the file holds anything else. The message names the file and what it refers to.
    """
    data = Path(path).read_bytes()

    try:
        if not is_plain(data):
            data = rewritten(data)
        return PlainUnpickler(io.BytesIO(data)).load()
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None
    except Exception as error:  # a damaged file can fail in every way that the unpickler knows
        raise BadInput(f"{path}: not a readable pickle ({error})") from None


def is_plain(data: bytes) -> bool:
    """Return whether a pickle has the form that `write_pickle` gives it."""
    position = 0

    while position < len(data):
        end = PLAIN.match(data, position).end()  # type: ignore[union-attr]  # it also matches nothing
        if end < len(data):
            width = LONG.get(data[end])
            if width is None:
                return False
            start = end + 1 + width
            end = start + int.from_bytes(data[end + 1 : start], "little")
            if end > len(data):
                return False
        position = end

    return True


def rewritten(data: bytes) -> bytes:
    """Return another program's pickle in the plain form."""
    command = [sys.executable, "-m", "workflow_scripts.core.foreign_pickles"]
    root = Path(__file__).resolve().parents[2]
    process = subprocess.run(command, input=data, capture_output=True, cwd=root, env={"PATH": "/usr/bin:/bin"})

    if process.returncode == 0 and is_plain(process.stdout):
        return process.stdout

    message = process.stderr.decode(errors="replace").strip().splitlines()
    if process.returncode < 0:
        message = ["it takes more memory or time than a file of its size should"]
    raise BadInput(message[-1] if message else "not a readable pickle")


# ---------------------------------------------------------------- what takes the place of NumPy's own functions


class PlainType:
    """A NumPy type in a pickle. Its state may only say what its name says already."""

    def __init__(self, name: Any, *_: Any):
        if not (isinstance(name, str) and PLAIN_TYPE.fullmatch(name)):
            raise BadInput(f"holds an array of type {name!r:.80}; only {LIKELY_TYPES} are read from pickles")
        self.type = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        order, *structure = state[1:5]
        itemsize = state[5]
        if structure != [None, None, None] or itemsize not in (-1, self.type.itemsize) or len(state) > 8:
            raise BadInput(f"holds an array of a type that is no plain {self.type}")
        if order in ("<", ">"):
            self.type = self.type.newbyteorder(order)


class Stand:
    """Takes the place of a function in a pickle, which can call it but not change it."""

    __slots__ = ("call",)

    def __init__(self, call: Any = None):
        object.__setattr__(self, "call", call)

    def __call__(self, *values: Any) -> Any:
        if self.call is None:
            raise BadInput("builds an array in a way that NumPy does not")
        return self.call(*values)

    def __setattr__(self, name: str, value: Any) -> None:
        raise BadInput("tries to change a function of NumPy")

    def __setstate__(self, state: Any) -> None:
        raise BadInput("tries to change a function of NumPy")


def array(data: Any, kind: Any, shape: Any, order: Any = "C") -> np.ndarray:
    """Return the array that a pickle of protocol 5 describes."""
    if not isinstance(kind, PlainType) or not isinstance(data, bytes | bytearray) or order not in ("C", "F"):
        raise BadInput("builds an array in a way that NumPy does not")
    if not isinstance(shape, tuple) or math.prod(shape) * kind.type.itemsize != len(data) or min(shape, default=0) < 0:
        raise BadInput(f"holds an array of shape {shape!r:.80} with {len(data)} bytes of {kind.type}")

    flat = np.frombuffer(data, kind.type) if data else np.empty(0, kind.type)
    return flat.reshape(shape, order=order)


def scalar(kind: Any, data: Any = b"") -> Any:
    """Return the NumPy number that a pickle describes."""
    return array(data, kind, (1,))[0]


NUMPY = {"numpy.core", "numpy._core"}  # the packages of NumPy 1 and 2
FUNCTIONS = {"_frombuffer": Stand(array), "scalar": Stand(scalar)}


class PlainUnpickler(pickle.Unpickler):
    """Reads the plain form: every name that it may hold stands for a function of this module."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy", "dtype"):
            return Stand(PlainType)
        if module.rpartition(".")[0] in NUMPY and name in FUNCTIONS:
            return FUNCTIONS[name]
        raise BadInput(f"refers to {module}.{name}; only {LIKELY_TYPES} are read from pickles")
