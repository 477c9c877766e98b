"""Pickles that attack their reader, by what they try. Most are put together from single instructions."""

import os
import pickle
import struct

import numpy as np

PROTO = b"\x80\x05"
EMPTY_RESULT = b"]."


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def name(module: str, attribute: str) -> bytes:
    """Push a global by the instruction of protocol 4."""
    return text(module) + text(attribute) + b"\x93"


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + b"(" + b"".join(arguments) + b"tR"


def dtype(kind: str) -> bytes:
    return call(name("numpy", "dtype"), text(kind), b"\x89", b"\x88")


def short_bytes(data: bytes) -> bytes:
    return b"C" + bytes([len(data)]) + data


def integer(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def shape(*sizes: int) -> bytes:
    return b"(" + b"".join(map(integer, sizes)) + b"t"


NDARRAY = name("numpy", "ndarray")
RECONSTRUCT = name("numpy._core.multiarray", "_reconstruct")
FROMBUFFER = name("numpy._core.numeric", "_frombuffer")
SCALAR = name("numpy._core.multiarray", "scalar")
STARTED = call(RECONSTRUCT, NDARRAY, shape(0), short_bytes(b"b"))


def state(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"tb"


class Call:
    """An object whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def reduced(protocol: int, function, *arguments) -> bytes:
    return pickle.dumps([{"uid": "a", "x": Call(function, *arguments)}], protocol)


def laughs(levels: int, last: bytes) -> bytes:
    """Build lists of two references to the list before, and end with some instructions."""
    levels_of_lists = b"".join(b"(h%ch%ct\x94" % (i, i) for i in range(levels))
    return PROTO + b"]\x94" + levels_of_lists + last


SYSTEM = {f"os.system, protocol {p}": reduced(p, os.system, "touch pwned") for p in range(6)}
BUILTINS = {
    f"builtins.{function.__name__}": reduced(4, function, "open('pwned', 'w')")
    for function in (eval, exec, compile, __import__, open, input, print, globals, vars, getattr, bytearray, memoryview)
}
MODULES = {
    f"{module}.{attribute}": PROTO + call(name(module, attribute), text("touch pwned")) + b"."
    for module, attribute in (
        ("posix", "system"),
        ("subprocess", "Popen"),
        ("subprocess", "run"),
        ("os", "execv"),
        ("pty", "spawn"),
        ("runpy", "run_path"),
        ("importlib", "import_module"),
        ("ctypes", "CDLL"),
        ("pickle", "loads"),
        ("marshal", "loads"),
        ("types", "FunctionType"),
        ("functools", "partial"),
        ("operator", "attrgetter"),
        ("torch", "load"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("collections", "OrderedDict"),
        ("pandas", "DataFrame"),
        ("numpy", "load"),
        ("numpy", "fromfile"),
        ("numpy", "memmap"),
        ("numpy.ctypeslib", "load_library"),
        ("numpy._core.multiarray", "fromstring"),
        ("numpy", "ndarray.tofile"),
        ("numpy", "dtype.__init__.__globals__"),
        ("workflow_scripts.core.files", "write_text"),
        ("workflow_scripts.core.pickles", "replacing"),
    )
}

INSTRUCTIONS = {
    "INST": b"(S'touch pwned'\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nS'touch pwned'\no.",
    "GLOBAL": b"cos\nsystem\n(S'touch pwned'\ntR.",
    "NEWOBJ": PROTO + name("subprocess", "Popen") + b"(X\x02\x00\x00\x00lst\x81.",
    "NEWOBJ of an array": PROTO + NDARRAY + shape(4) + b"\x81.",
    "NEWOBJ_EX of an array": PROTO + NDARRAY + shape(4) + b"}\x92.",
    "extension registry": PROTO + b"\x82\x01.",
    "persistent id": b"Pposix.system\n.",
    "persistent id, binary": PROTO + text("x") + b"Q.",
    "out-of-band buffer": PROTO + b"\x97.",
    "unknown instruction": PROTO + b"\xff.",
    "protocol 255": b"\x80\xff].",
    "name that is a number": PROTO + integer(1) + integer(2) + b"\x93.",
}

ARRAYS = {
    "array over bytes as pointers": PROTO + call(NDARRAY, shape(1), dtype("O8"), short_bytes(b"A" * 8)) + b".",
    "array without contents": PROTO + call(NDARRAY, shape(100)) + b".",
    "array of 80 TB": PROTO + call(NDARRAY, b"(\x8a\x06" + (10**13).to_bytes(6, "little") + b"t") + b".",
    "objects from bytes": PROTO + call(FROMBUFFER, short_bytes(b"A" * 8), dtype("O8"), shape(1), text("C")) + b".",
    "object scalar": PROTO + call(SCALAR, dtype("O8"), short_bytes(b"A" * 8)) + b".",
    "scalar that is too long": PROTO + call(SCALAR, dtype("f8"), short_bytes(b"A" * 4)) + b".",
    "void scalar": PROTO + call(SCALAR, dtype("V4096"), short_bytes(b"A" * 16)) + b".",
    "negative shape": PROTO + call(FROMBUFFER, short_bytes(b"A" * 8), dtype("f4"), shape(-1, -2), text("C")) + b".",
    "shape beyond the bytes": PROTO + call(FROMBUFFER, short_bytes(b"A" * 8), dtype("f4"), shape(9), text("C")) + b".",
    "shape that is text": PROTO + call(FROMBUFFER, short_bytes(b"A" * 8), dtype("f4"), text("C"), text("C")) + b".",
    "type that is text": PROTO + call(FROMBUFFER, short_bytes(b"A" * 8), text("f4"), shape(2), text("C")) + b".",
    "text of 2 GB": PROTO + call(SCALAR, dtype("U500000000"), short_bytes(b"A")) + b".",
    "type with fields": PROTO
    + call(SCALAR, dtype("f8") + state(integer(3), text("<"), b"N", text("a"), b"}", integer(8), integer(1), b"K\x00"))
    + b".",
    "type with another size": PROTO
    + dtype("f4")
    + state(integer(3), text("<"), b"N", b"N", b"N", integer(4096), integer(1), b"K\x00")
    + b".",
    "type of a class": PROTO + call(name("numpy", "dtype"), NDARRAY) + b".",
    "contents as pointers": PROTO
    + STARTED
    + state(integer(1), shape(1), dtype("O8"), b"\x89", short_bytes(b"A" * 8))
    + b".",
    "contents that are too short": PROTO
    + STARTED
    + state(integer(1), shape(100), dtype("f8"), b"\x89", short_bytes(b"A" * 8))
    + b".",
    "state of three parts": PROTO + STARTED + state(integer(1), shape(1), dtype("f8")) + b".",
    "object array with a call": pickle.dumps(np.array([Call(os.system, "touch pwned")], dtype=object)),
    "object array in itself": PROTO + STARTED + b"\x94" + state(integer(1), shape(1), dtype("O8"), b"\x89", b"]h\x00a"),
}

CHANGES = {
    f"{what} of {function}": PROTO + target + change + b"0" + EMPTY_RESULT
    for what, change in (
        ("attribute", b"}" + text("__name__") + text("x") + b"sb"),
        ("slot", b"N}" + text("__defaults__") + b")s\x86b"),
        ("call", b"}" + text("call") + NDARRAY + b"sb"),
        ("item", text("a") + text("b") + b"s"),
    )
    for function, target in (("_frombuffer", FROMBUFFER), ("dtype", name("numpy", "dtype")), ("ndarray", NDARRAY))
}

SIZES = {
    "memo index 2^28": PROTO + b"]r" + struct.pack("<I", 1 << 28) + b".",
    "memo index 2^31 - 1": PROTO + b"]r" + struct.pack("<I", (1 << 31) - 1) + b".",
    "memo index as text": b"]p99999999999999999999\n.",
    "memo value that is missing": PROTO + b"h\x05.",
    "text of 1 TB": PROTO + b"\x8d" + struct.pack("<Q", 1 << 40) + b".",
    "bytes of 2^62": PROTO + b"\x8e" + struct.pack("<Q", 1 << 62) + b".",
    "bytearray of 12 GB": PROTO + b"\x96" + struct.pack("<Q", 12 << 30) + b".",
    "bytearray of 64 GB": PROTO + b"\x96" + struct.pack("<Q", 1 << 36) + b".",
    "frame of 2^60": PROTO + b"\x95" + struct.pack("<Q", 1 << 60) + b"].",
    "number of 2 GB": PROTO + b"\x8b" + struct.pack("<i", (1 << 31) - 1) + b".",
    "number of a negative length": PROTO + b"\x8b" + struct.pack("<i", -5) + b".",
    "number of 1 MB": PROTO + b"\x8b" + struct.pack("<i", 1 << 20) + b"\x7f" * (1 << 20) + b".",
    "number of 5 million digits": b"L" + b"9" * 5_000_000 + b"L\n.",
    "lists that double 60 times": laughs(60, b"."),
    "tuples that double 60 times, as a key": laughs(60, b"0}h\x3cNs."),
    "list in itself": PROTO + b"]\x94h\x00a.",
    "lists nested a million deep, with a memo": PROTO + b"]\x94" * 1_000_000 + b"a" * 999_999 + b".",
}

FORMS = {
    "empty file": b"",
    "random bytes": bytes(range(256)) * 4,
    "a Python program": b"import os\nos.system('touch pwned')\n",
    "gzip": b"\x1f\x8b\x08\x00" + b"\x00" * 20,
    "cut off": pickle.dumps([{"uid": "a"}])[:-3],
    "no stop": PROTO + b"]",
    "stop only": b".",
    "mark only": PROTO + b"(.",
    "stack underflow": PROTO + b"a.",
    "append to a number": PROTO + integer(1) + integer(2) + b"a.",
    "unhashable key": PROTO + b"}]Ns.",
    "unhashable item": PROTO + b"\x8f(]\x90.",
    "state of a list": PROTO + b"]}" + text("a") + b"Nsb.",
    "complex number": pickle.dumps([1j]),
    "class of the reader": PROTO + name("workflow_scripts.core.pickles", "PlainType") + b".",
}

HOSTILE = {
    **SYSTEM, **BUILTINS, **MODULES, **INSTRUCTIONS, **ARRAYS, **CHANGES, **SIZES, **FORMS,
}  # fmt: skip
