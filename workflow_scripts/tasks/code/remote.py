"""What stands for a program's functions, classes and objects in the process that runs the tests.

A test calls them as if they were its own. Results arrive as plain values (`values.py`), which the test compares by the
pristine operators of this process. An object that is no plain value stays with the program, and a `Remote` stands for
it. It never agrees with a plain value, and no operation shows it one that the test expects: it is compared and combined
with objects of the program only, and `in` looks through its elements here. Whether two objects of the program are equal
is for their own `__eq__` to say, unless it agrees with anything. So a program that says so of its own objects only, and
wrongly, passes a test that compares two of them.
"""

import builtins
import importlib
import secrets
import sys
from collections.abc import Callable, Iterator
from typing import Any

from workflow_scripts.tasks.code.values import decode, encode, encode_function

# Methods that say whether an object agrees with what a test passes to them. A program could answer what is convenient.
PREDICATES = {"startswith", "endswith", "issubset", "issuperset", "isdisjoint", "equals", "identical"}
LIBRARIES = {"collections", "matplotlib", "numpy", "pandas", "re", "scipy", "seaborn", "sklearn", "sympy"}
MOST_ELEMENTS = 10_000_000


class ProgramEnded(Exception):
    """Raised in a test if the program's process has ended. Its text is the reason."""


class Session:
    """The program's side, as the tests see it. `send` performs a call and returns the reply."""

    def __init__(self, send: Callable[[dict[str, Any]], dict[str, Any]]):
        self.send = send
        self.exceptions: dict[str, type[BaseException]] = {}

    def perform(self, call: dict[str, Any], arguments: tuple = (), options: dict[str, Any] | None = None) -> Any:
        """Perform a call and return its result; raise what it raised."""
        call["arguments"] = [encode(argument, self.own) for argument in arguments]
        call["options"] = {name: encode(value, self.own) for name, value in (options or {}).items()}
        reply = self.send(call)

        if printed := reply.get("printed"):
            sys.stdout.write(str(printed))
        if "raised" in reply:
            kind = self.exception(reply["raised"])
            if issubclass(kind, StopIteration | StopAsyncIteration | GeneratorExit) and call["do"] != "next":
                kind = RuntimeError  # it would silently end the test's own loop
            raise kind(str(reply.get("message", "")))

        for argument, changed in zip(arguments, reply.get("changed", [])):
            copy_content(decode(changed, self.remote), argument)
        return decode(reply["value"], self.remote)

    def own(self, value: Any) -> Any:
        """Return the data of an argument that is no plain value: an object of the program, or a test's function."""
        if isinstance(value, Remote):
            return ["opaque", number_of(value), ""]
        return encode_function(value)

    def remote(self, data: list) -> Any:
        """Return what stands for an object of the program."""
        kind, number, name = data
        if kind != "opaque" or not isinstance(number, int):
            raise ValueError(f"a program sent {kind!r:.50}")
        return Remote(self, number, library_class(str(name)))

    def look_up(self, name: str) -> Any:
        """Return what a name of the program stands for. Raise NameError if there is none."""
        reply = self.send({"do": "look up", "name": name})
        if "exception" in reply:
            return self.exception(reply["exception"])
        if "value" not in reply:
            raise NameError(f"the program does not define {name}")
        return decode(reply["value"], self.remote)

    def exception(self, bases: Any) -> type[BaseException]:
        """Return the class of a program's exception: Python's own, or one of the same name below it."""
        names = [str(name) for name in bases]
        own = [
            getattr(builtins, name.removeprefix("builtins."), None) for name in names if name.startswith("builtins.")
        ]
        base = next((kind for kind in own if isinstance(kind, type) and issubclass(kind, BaseException)), Exception)
        if names and names[0].startswith("builtins."):
            return base
        name = names[0] if names else "Exception"
        if name not in self.exceptions:
            own_class: Any = type(name, (base,), {})
            self.exceptions[name] = own_class
        return self.exceptions[name]


def copy_content(source: Any, target: Any) -> None:
    """Give a list, dict, set or bytearray of the test the content that the program left in it."""
    if type(source) is not type(target):
        return
    if isinstance(target, list | bytearray):
        target[:] = source
    elif isinstance(target, dict | set):
        target.clear()
        target.update(source)


def library_class(name: str) -> type | None:
    """Return the class of a well-known library that has this full name, or None."""
    module, _, kind = name.rpartition(".")
    if module.partition(".")[0] not in LIBRARIES:
        return None
    try:
        member = getattr(importlib.import_module(module), kind, None)
    except ImportError:
        return None
    return member if isinstance(member, type) else None


def number_of(remote: "Remote") -> int:
    """Return the number under which the program knows an object."""
    return object.__getattribute__(remote, "_number")


class Remote:
    """Stands for an object of the program."""

    def __init__(self, session: Session, number: int, kind: type | None):
        object.__setattr__(self, "_session", session)
        object.__setattr__(self, "_number", number)
        object.__setattr__(self, "_kind", kind)

    @property
    def __class__(self) -> type:  # type: ignore[override]  # what isinstance() asks for
        return object.__getattribute__(self, "_kind") or Remote

    def _perform(self, verb: str, *arguments: Any, **fields: Any) -> Any:
        session = object.__getattribute__(self, "_session")
        return session.perform({"do": verb, "object": number_of(self), **fields}, arguments)

    def _combine(self, verb: str, other: Any) -> Any:
        if not isinstance(other, Remote):
            return NotImplemented
        return self._perform(verb, other)

    def _agrees_with_anything(self) -> bool:
        """Return whether the object even equals a text that nobody knows. Then its word on equality does not count."""
        try:
            return self._perform("eq", secrets.token_hex(8)) is True
        except ProgramEnded:
            raise
        except Exception:  # its comparison expects an object of its own kind, and so it can tell objects apart
            return False

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        session = object.__getattribute__(self, "_session")
        return session.perform({"do": "call", "object": number_of(self)}, arguments, options)

    def __getattr__(self, name: str) -> Any:
        if name in PREDICATES or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(f"tests may not ask an object of the program for {name}")
        return self._perform("get attribute", attribute=name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._perform("set attribute", value, attribute=name)

    def __getitem__(self, key: Any) -> Any:
        return self._perform("get item", key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._perform("set item", key, value)

    def __len__(self) -> int:
        length = self._perform("length")
        if type(length) is not int:
            raise TypeError("the length is no integer")
        return length

    def __iter__(self) -> Iterator[Any]:
        iterator = self._perform("iterate")
        if not isinstance(iterator, Remote):
            return iter(iterator)
        return elements(iterator)

    def __next__(self) -> Any:
        return self._perform("next")

    def __contains__(self, value: Any) -> bool:
        return any(value is element or value == element for element in self)

    def __str__(self) -> str:
        return as_text(self._perform("text"))

    def __repr__(self) -> str:
        return as_text(self._perform("representation"))

    def __bool__(self) -> bool:
        return self._perform("truth") is True

    def __instancecheck__(self, value: Any) -> bool:
        return isinstance(value, Remote) and self._perform("has instance", value) is True

    def __hash__(self) -> int:
        return number_of(self)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Remote) and self._perform("eq", other) is True and not self._agrees_with_anything()

    def __ne__(self, other: Any) -> bool:
        if not isinstance(other, Remote):
            return True
        return self._perform("ne", other) is True and self._perform("ne", self) is not True

    def __lt__(self, other: Any) -> Any:
        return self._combine("lt", other)

    def __le__(self, other: Any) -> Any:
        return self._combine("le", other)

    def __gt__(self, other: Any) -> Any:
        return self._combine("gt", other)

    def __ge__(self, other: Any) -> Any:
        return self._combine("ge", other)

    def __add__(self, other: Any) -> Any:
        return self._combine("add", other)

    def __sub__(self, other: Any) -> Any:
        return self._combine("sub", other)

    def __mul__(self, other: Any) -> Any:
        return self._combine("mul", other)

    def __truediv__(self, other: Any) -> Any:
        return self._combine("truediv", other)

    def __matmul__(self, other: Any) -> Any:
        return self._combine("matmul", other)

    def __and__(self, other: Any) -> Any:
        return self._combine("and", other)

    def __or__(self, other: Any) -> Any:
        return self._combine("or", other)


def elements(iterator: Remote) -> Iterator[Any]:
    """Yield the elements of a program's iterator."""
    for _ in range(MOST_ELEMENTS):
        try:
            element = next(iterator)
        except StopIteration:
            return
        yield element


def as_text(value: Any) -> str:
    """Return a text; raise TypeError for anything else, as str() does."""
    if type(value) is not str:
        raise TypeError("the text of an object is no text")
    return value
