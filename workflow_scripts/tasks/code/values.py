"""Write Python values as plain data, between the process of a program and that of its tests.

A value is rebuilt from its data alone, as an object of Python's own types: nothing that a program defines crosses over,
such as an `__eq__` that always agrees. Objects of subclasses arrive as the type that they derive from (a named tuple as
a tuple, an IntEnum as an int). Arrays of numpy and tables of pandas cross over by their numbers and texts. Everything
else is *opaque*: it stays where it is, and a number stands for it.

Both processes use this module. A program may change it in its own process, and then tells untruths about its own
results, which it can do anyway.
"""

import base64
import datetime
import decimal
import fractions
import marshal
import types
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

Data = Any  # what JSON can hold
Opaque = Callable[[Any], Data]  # returns the data of an opaque object, or raises TypeError
MOMENTS = {"datetime": datetime.datetime, "date": datetime.date, "time": datetime.time}
SEQUENCES: dict[str, Callable[[list], Any]] = {
    "list": list, "tuple": tuple, "set": set, "frozenset": frozenset, "deque": deque,
}  # fmt: skip


def encode(value: Any, opaque: Opaque) -> Data:
    """Return a value as plain data: None, a bool, a text, or a list of a kind and its contents."""
    if value is None or value is True or value is False:
        return value

    kind = type(value)
    if issubclass(kind, bool | int):
        return ["int", hex(int(value))]
    if issubclass(kind, float) and kind.__module__ != "numpy":
        return ["float", float(value).hex()]
    if issubclass(kind, str) and kind.__module__ != "numpy":
        return str.__str__(value)
    if issubclass(kind, complex) and kind.__module__ != "numpy":
        return ["complex", value.real.hex(), value.imag.hex()]
    if issubclass(kind, bytes | bytearray):
        return ["bytearray" if issubclass(kind, bytearray) else "bytes", base64.b64encode(value).decode()]
    for name, base in SEQUENCES.items():
        if issubclass(kind, base):  # type: ignore[arg-type]
            return [name, [encode(item, opaque) for item in value]]
    if issubclass(kind, dict):
        name = "counter" if issubclass(kind, Counter) else "dict"
        return [name, [[encode(key, opaque), encode(item, opaque)] for key, item in value.items()]]
    return encode_rarer(value, opaque)


def encode_rarer(value: Any, opaque: Opaque) -> Data:
    """Return a value of a less common type as plain data."""
    kind = type(value)
    if kind is decimal.Decimal:
        return ["decimal", str(value)]
    if kind is fractions.Fraction:
        return ["fraction", hex(value.numerator), hex(value.denominator)]
    if kind is range:
        return ["range", [hex(bound) for bound in (value.start, value.stop, value.step)]]
    if kind is datetime.timedelta:
        return ["timedelta", value.days, value.seconds, value.microseconds]
    for name, moment in MOMENTS.items():
        if kind is moment:
            return [name, value.isoformat()]
    if kind.__module__ == "numpy":
        return encode_array(value, opaque)
    if kind.__module__.partition(".")[0] == "pandas":
        return encode_table(value, opaque)
    return opaque(value)


def encode_array(value: Any, opaque: Opaque) -> Data:
    """Return an array or a number of numpy as plain data."""
    import numpy

    if not isinstance(value, numpy.ndarray | numpy.generic):
        return opaque(value)
    name = "array" if isinstance(value, numpy.ndarray) else "number"
    array = numpy.asarray(value)
    if array.dtype.hasobject:
        return ["objects", list(array.shape), [encode(item, opaque) for item in array.ravel().tolist()]]
    data = base64.b64encode(numpy.ascontiguousarray(array).tobytes()).decode()
    return [name, array.dtype.str, list(array.shape), data]


def encode_table(value: Any, opaque: Opaque) -> Data:
    """Return a DataFrame or Series as plain data."""
    import pandas

    if isinstance(value, pandas.DataFrame):
        columns = [[encode(name, opaque), encode(value.iloc[:, i], opaque)] for i, name in enumerate(value.columns)]
        return ["frame", columns, encode(list(value.index), opaque)]
    if isinstance(value, pandas.Series):
        items = [encode(item, opaque) for item in value.tolist()]
        return ["series", items, str(value.dtype), encode(value.name, opaque), encode(list(value.index), opaque)]
    if isinstance(value, pandas.Timestamp):
        return ["timestamp", value.isoformat()]
    return opaque(value)


def decode(data: Data, opaque: Callable[[list], Any]) -> Any:
    """Return the value of plain data. `opaque` turns the data of an opaque object into what stands for it.

    Raises:
        ValueError, TypeError, KeyError: if the data is not what `encode` returns.
    """
    if data is None or isinstance(data, bool | str):
        return data
    kind, *rest = data

    if kind == "int":
        return int(rest[0], 16)
    if kind == "float":
        return float.fromhex(rest[0])
    if kind == "complex":
        return complex(float.fromhex(rest[0]), float.fromhex(rest[1]))
    if kind in ("bytes", "bytearray"):
        content = base64.b64decode(rest[0])
        return bytearray(content) if kind == "bytearray" else content
    if kind in SEQUENCES:
        return SEQUENCES[kind]([decode(item, opaque) for item in rest[0]])
    if kind in ("dict", "counter"):
        pairs = {decode(key, opaque): decode(item, opaque) for key, item in rest[0]}
        return Counter(pairs) if kind == "counter" else pairs
    return decode_rarer(kind, rest, opaque)


def decode_rarer(kind: str, rest: list, opaque: Callable[[list], Any]) -> Any:
    """Return the value of plain data of a less common type."""
    if kind == "decimal":
        return decimal.Decimal(rest[0])
    if kind == "fraction":
        return fractions.Fraction(int(rest[0], 16), int(rest[1], 16))
    if kind == "range":
        return range(*(int(bound, 16) for bound in rest[0]))
    if kind == "timedelta":
        return datetime.timedelta(*rest)
    if kind in MOMENTS:
        return MOMENTS[kind].fromisoformat(rest[0])
    if kind in ("array", "number", "objects"):
        return decode_array(kind, rest, opaque)
    if kind in ("frame", "series", "timestamp"):
        return decode_table(kind, rest, opaque)
    return opaque([kind, *rest])


def decode_array(kind: str, rest: list, opaque: Callable[[list], Any]) -> Any:
    """Return an array or a number of numpy."""
    import numpy

    if kind == "objects":
        array = numpy.empty(len(rest[1]), dtype=object)
        array[:] = [decode(item, opaque) for item in rest[1]]
        return array.reshape(rest[0])
    array = numpy.frombuffer(base64.b64decode(rest[2]), dtype=numpy.dtype(rest[0])).reshape(rest[1]).copy()
    return array[()] if kind == "number" else array


def decode_table(kind: str, rest: list, opaque: Callable[[list], Any]) -> Any:
    """Return a DataFrame, a Series or a Timestamp."""
    import pandas

    if kind == "timestamp":
        return pandas.Timestamp(rest[0])
    if kind == "series":
        items = [decode(item, opaque) for item in rest[0]]
        index = decode(rest[3], opaque)
        return pandas.Series(items, dtype=rest[1], name=decode(rest[2], opaque), index=index)
    names = [decode(name, opaque) for name, _ in rest[0]]
    frame = pandas.DataFrame(dict(enumerate(decode(column, opaque) for _, column in rest[0])))
    frame.columns = names
    frame.index = decode(rest[1], opaque)
    return frame


# ---------------------------------------------------------------- functions of a test


def encode_function(function: Any) -> Data:
    """Return a function that a test defines, such as a lambda, as plain data. Raise TypeError if it has a closure."""
    if not isinstance(function, types.FunctionType) or function.__closure__:
        raise TypeError(f"a test passes {type(function).__name__}, which cannot be passed to a program")
    return ["function", base64.b64encode(marshal.dumps((function.__code__, function.__defaults__))).decode()]


def decode_function(data: list) -> Any:
    """Return a function of a test in the process of the program."""
    code, defaults = marshal.loads(base64.b64decode(data[1]))
    return types.FunctionType(code, {"__builtins__": __builtins__}, code.co_name, defaults)
