"""The process of a program under test. It runs the program, calls its functions, and sends results as plain data.

It is isolated and knows neither the tests nor what they expect: only which of its functions is called with which
arguments. Whatever the program does here, to builtins, modules, frames or its own pipes, can change no more than the
values that it returns.
"""

import contextlib
import io
import json
import os
import signal
import struct
import sys
import types
from typing import Any

from workflow_scripts.core import sandbox
from workflow_scripts.core.workers import enclose
from workflow_scripts.tasks.code.values import decode, decode_function, encode

HEAD = struct.Struct("<Q")
CALLS, REPLIES = 3, 4  # descriptors
MOST_PRINTED = 100_000  # characters of a call's output that are sent
OPERATORS = {
    "eq": lambda a, b: a == b, "ne": lambda a, b: a != b, "lt": lambda a, b: a < b, "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b, "add": lambda a, b: a + b, "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b, "truediv": lambda a, b: a / b, "matmul": lambda a, b: a @ b, "and": lambda a, b: a & b,
    "or": lambda a, b: a | b, "xor": lambda a, b: a ^ b, "has instance": lambda a, b: isinstance(b, a),
}  # fmt: skip


def read_frame(descriptor: int, limit: int | None = None) -> bytes:
    """Read one frame: its length and its content. Raise EOFError at the end, ValueError if it is too long."""
    length = HEAD.unpack(_read_bytes(descriptor, HEAD.size))[0]
    if limit is not None and length > limit:
        raise ValueError(f"longer than {limit} bytes")
    return _read_bytes(descriptor, length)


def _read_bytes(descriptor: int, count: int) -> bytes:
    chunks = []
    while count:
        chunk = os.read(descriptor, min(count, 1 << 20))
        if not chunk:
            raise EOFError
        chunks.append(chunk)
        count -= len(chunk)
    return b"".join(chunks)


def write_frame(descriptor: int, content: bytes) -> None:
    """Write one frame."""
    data = HEAD.pack(len(content)) + content
    while data:
        data = data[os.write(descriptor, data) :]


def prepare_process(descriptors: list[int], limits: dict[str, int], is_isolated: bool, scratch: str) -> None:
    """Keep these descriptors, as 0, 1, 2, …, close all others, and isolate this process. Raise OSError without room."""
    sandbox.libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
    moved = [os.dup(descriptor) for descriptor in descriptors]  # so that none is overwritten before it is moved
    high = [os.dup2(descriptor, 200 + i) for i, descriptor in enumerate(moved)]
    os.closerange(0, 200)
    for i, descriptor in enumerate(high):
        os.dup2(descriptor, i)
    os.closerange(len(high), 4096)

    os.chdir(scratch)
    os.environ.clear()
    os.environ |= {"MPLBACKEND": "Agg", "TMPDIR": scratch}
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    enclose(limits, is_isolated, scratch)


# ---------------------------------------------------------------- a program that reads stdin


def run_script(source: str) -> int:
    """Run a program as a script and return its exit status."""
    sys.stdin = open(0, closefd=False)
    sys.stdout = open(1, "w", buffering=65536, closefd=False)
    sys.stderr = io.StringIO()
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    status = 0

    try:
        exec(compile(source, "<program>", "exec"), main.__dict__)
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        status = 1
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
    return status & 0xFF


# ---------------------------------------------------------------- a program whose functions are called


class Program:
    """A program as a module, and the objects that its tests refer to by number."""

    def __init__(self, source: str):
        self.objects: list[Any] = []
        self.module = types.ModuleType("solution")
        sys.modules["solution"] = self.module
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            exec(compile(source, "<program>", "exec"), self.module.__dict__)

    def encode(self, value: Any) -> Any:
        return encode(value, self.opaque)

    def opaque(self, value: Any) -> list:
        self.objects.append(value)
        return ["opaque", len(self.objects) - 1, f"{type(value).__module__}.{type(value).__qualname__}"]

    def decode(self, data: Any) -> Any:
        return decode(data, self.known)

    def known(self, data: list) -> Any:
        return decode_function(data) if data[0] == "function" else self.objects[data[1]]

    def perform(self, call: dict[str, Any]) -> Any:
        """Do what a test asks for, and return the reply."""
        verb = call["do"]
        if verb == "look up":
            return self.look_up(call["name"])

        target = self.objects[call["object"]] if "object" in call else getattr(self.module, call["name"])
        arguments = [self.decode(argument) for argument in call.get("arguments", [])]
        options = {name: self.decode(value) for name, value in call.get("options", {}).items()}

        if verb == "call":
            value = target(*arguments, **options)
            reply = {"value": self.encode(value)}
            if value is None:  # a function that works in place
                reply["changed"] = [self.encode(argument) for argument in arguments]
            return reply
        return {"value": self.encode(self.operate(verb, target, arguments, call))}

    def operate(self, verb: str, target: Any, arguments: list, call: dict[str, Any]) -> Any:
        """Return what an operation on an object gives."""
        if verb in OPERATORS:
            return OPERATORS[verb](target, arguments[0])
        if verb == "get attribute":
            return getattr(target, call["attribute"])
        if verb == "set attribute":
            return setattr(target, call["attribute"], arguments[0])
        if verb == "get item":
            return target[arguments[0]]
        if verb == "set item":
            target[arguments[0]] = arguments[1]
            return None
        return {"length": len, "iterate": iter, "next": next, "text": str, "representation": repr, "truth": bool}[verb](
            target
        )

    def look_up(self, name: str) -> Any:
        """Return what a name of the program stands for."""
        if not hasattr(self.module, name):
            return {"missing": True}
        value = getattr(self.module, name)
        if isinstance(value, type) and issubclass(value, BaseException):
            return {"exception": bases_of(value)}
        return {"value": self.encode(value)}


def bases_of(kind: type) -> list[str]:
    """Return the names of an exception's class and of its bases, those of Python with the prefix `builtins.`."""
    return [f"builtins.{base.__name__}" if base.__module__ == "builtins" else base.__name__ for base in kind.__mro__]


def serve(source: str) -> None:
    """Load a program, then answer calls until there are no more."""
    try:
        program = Program(source)
    except BaseException as fault:
        reply(failure(fault))
        return
    reply({"value": None})

    while True:
        call = json.loads(read_frame(CALLS))
        printed = io.StringIO()
        sys.stdout = printed
        try:
            answer = program.perform(call)
        except BaseException as fault:
            answer = failure(fault)
        answer["printed"] = printed.getvalue()[:MOST_PRINTED]
        try:
            reply(answer)
        except BaseException as fault:
            reply(failure(fault))


def failure(fault: BaseException) -> dict[str, Any]:
    """Return an exception as plain data."""
    try:
        message = str(fault)[:1000]
    except BaseException:
        message = ""
    return {"raised": bases_of(type(fault)), "message": message}


def reply(answer: dict[str, Any]) -> None:
    write_frame(REPLIES, json.dumps(answer).encode())
