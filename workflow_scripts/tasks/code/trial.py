"""Run the tests of a question against a program: a handler of core/workers.py.

Three processes share the work. This one runs the tests and decides, with builtins that no program can reach. The host
(`host.py`) starts the program, which runs in a process of its own (`program.py`) and gets the arguments of calls only.
Results come back as plain values (`values.py`).
"""

import ast
import builtins
import contextlib
import importlib
import json
import os
import signal
import symtable
import tempfile
import unittest
from decimal import Decimal, InvalidOperation
from typing import Any

from workflow_scripts.core.workers import Emit, Isolate
from workflow_scripts.tasks.code import host
from workflow_scripts.tasks.code.program import read_frame, write_frame
from workflow_scripts.tasks.code.remote import ProgramEnded, Session

LIMITS = {"cpu_seconds": 600, "wall_seconds": 1800, "memory_mb": 2048, "output_bytes": 10_000_000}  # of all tests
PRELOAD = ("math", "re", "random", "string", "itertools", "functools", "collections", "heapq", "bisect", "datetime",
           "typing", "json", "unittest.mock", "numpy")  # fmt: skip
# Names that a test may use without importing them, as its program usually does. They never come from the program.
MODULES = {name: name for name in ("math", "re", "random", "string", "itertools", "functools", "collections", "heapq",
                                   "bisect", "datetime", "time", "typing", "json", "os", "sys", "copy", "operator",
                                   "statistics", "decimal", "fractions", "cmath", "io", "unittest", "numpy", "pandas",
                                   "scipy", "sympy")}  # fmt: skip
MODULES |= {"np": "numpy", "pd": "pandas", "plt": "matplotlib.pyplot"}
MEMBERS = {"isclose": "math", "inf": "math", "nan": "math", "Counter": "collections", "defaultdict": "collections",
           "deque": "collections", "OrderedDict": "collections", "Decimal": "decimal", "Fraction": "fractions",
           "permutations": "itertools", "combinations": "itertools", "reduce": "functools", "List": "typing",
           "Dict": "typing", "Tuple": "typing", "Set": "typing", "Optional": "typing", "Any": "typing",
           "Union": "typing"}  # fmt: skip
BUILTINS = dict(vars(builtins))
TIMERS = {signal.SIGALRM, signal.SIGPROF}


class TooSlow(BaseException):
    """Raised within a test whose own work exceeds the limits."""


class NoRoom(BaseException):
    """Raised if the machine, and not the program, is at fault."""


class Connection:
    """The pipes to the host."""

    def __init__(self, host_pid: int, commands: int, replies: int, scratch: str):
        self.host_pid = host_pid
        self.commands = commands
        self.replies = replies
        self.scratch = scratch  # the folder that tests and program share

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """Send a command to the host and return its answer. Raise NoRoom if it cannot start programs.

        A test's own time limit takes effect after the answer, so that none is left behind for the next command.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, TIMERS)
        try:
            write_frame(self.commands, json.dumps(command).encode())
            content = read_frame(self.replies)
        except (EOFError, BrokenPipeError):
            raise NoRoom("the process that starts programs has ended") from None
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, TIMERS)
        answer = json.loads(content)
        if "no room" in answer:
            raise NoRoom(answer["no room"])
        return answer

    def close(self) -> None:
        """Let the host end, with the program, and wait for it."""
        os.close(self.commands)
        os.close(self.replies)
        os.waitpid(self.host_pid, 0)


def warm_up() -> None:
    """Import what tests and programs commonly use."""
    for module in PRELOAD:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)


def begin(is_isolated: bool) -> Connection:
    """Fork the host, before this process reads the tests."""
    scratch = tempfile.mkdtemp(prefix="sandbox-")
    commands_read, commands_write = os.pipe()
    replies_read, replies_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            for name, descriptor in (("commands", commands_read), ("replies", replies_write)):
                os.dup2(descriptor, {"commands": 100, "replies": 101}[name])
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in range(3):
                os.dup2(null, descriptor)
            os.closerange(3, 100)
            os.closerange(102, 4096)
            host.serve(100, 101, is_isolated, scratch)
        finally:
            os._exit(0)
    os.close(commands_read)
    os.close(replies_write)
    return Connection(pid, commands_write, replies_read, scratch)


def handle(request: dict[str, Any], isolate: Isolate, emit: Emit, connection: Connection) -> None:
    """Emit for each test whether it passed, and if not, why: [passed, reason].

    Emit {"no room": reason} and stop if the machine cannot start programs.
    """
    isolate(connection.scratch)
    os.chdir(connection.scratch)
    tempfile.tempdir = connection.scratch
    limits = request["limits"]
    trial = Trial(connection, request["program"], limits)
    signal.signal(signal.SIGALRM, _stop)
    signal.signal(signal.SIGPROF, _stop)

    for test in request["tests"]:
        try:
            reason = trial.run(test)
        except NoRoom as fault:
            emit({"no room": str(fault)})
            break
        except BaseException as fault:
            reason = f"{type(fault).__name__}: {fault!s:.200}"
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.setitimer(signal.ITIMER_PROF, 0)
        emit([reason is None, reason])

    connection.close()


def _stop(*_: Any) -> None:
    raise TooSlow("the test took too long")


def program_reply(answer: dict[str, Any]) -> dict[str, Any]:
    """Return what a program says, by the host's answer. Raise ProgramEnded if it says nothing that can be read."""
    if "ended" in answer:
        raise ProgramEnded(answer["ended"])
    try:
        reply = json.loads(answer["reply"])
    except (ValueError, RecursionError):
        reply = None
    if not isinstance(reply, dict):
        raise ProgramEnded("it sent what is no reply")
    return reply


class Trial:
    """The tests of one program."""

    def __init__(self, connection: Connection, program: str, limits: dict[str, int]):
        self.connection = connection
        self.program = program
        self.limits = limits
        self.cpu_left = 0.0  # of the program, in the present test
        self.is_loaded = False
        self.load_fault: str | None = None

    def run(self, test: str) -> str | None:
        """Return why the program does not pass a test, or None if it passes."""
        if streams := stdin_test(test):
            return self.run_on_input(*streams)

        self.load()
        if self.load_fault:
            return self.load_fault
        self.cpu_left = float(self.limits["cpu_seconds"])
        signal.setitimer(signal.ITIMER_REAL, 2 * self.limits["wall_seconds"])
        signal.setitimer(signal.ITIMER_PROF, self.limits["cpu_seconds"])
        run_test(test, Session(self.send), self.program)
        return None

    def load(self) -> None:
        """Start the program, unless its process still runs."""
        if self.is_loaded or self.load_fault:
            return
        answer = self.connection.ask({"do": "load", "program": self.program, "limits": self.limits})
        self.is_loaded = True
        try:
            reply = program_reply(answer)
        except ProgramEnded as fault:
            self.load_fault = f"the program does not load: {fault}"
        else:
            if names := reply.get("raised"):
                cause = f"{names[0]}: {reply.get('message')}" if isinstance(names, list) else names
                self.load_fault = f"the program does not load: {cause!s:.200}".replace("builtins.", "")

    def send(self, call: dict[str, Any]) -> dict[str, Any]:
        """Perform a call and return the program's reply."""
        limits = self.limits | {"cpu_seconds": max(self.cpu_left, 0.01)}
        answer = self.connection.ask({"do": "call", "call": call, "limits": limits})
        self.cpu_left -= answer.get("cpu_seconds", 0.0)
        if "ended" in answer:
            self.is_loaded = False
        return program_reply(answer)

    def run_on_input(self, stdin: str, expected: str) -> str | None:
        """Return why what the program prints on an input is not what it should print."""
        command = {"do": "script", "program": self.program, "stdin": stdin, "limits": self.limits}
        reply = self.connection.ask(command)
        if reply["fault"]:
            return reply["fault"]
        return None if same_output(reply["output"], expected) else f"it printed {reply['output']!r:.100}"


# ---------------------------------------------------------------- tests by stdin and stdout


def stdin_test(test: str) -> tuple[str, str] | None:
    """Return input and expected output of a test of that kind: JSON text with the keys `stdin` and `stdout`."""
    if not test.startswith("{"):
        return None
    try:
        streams = json.loads(test)
    except ValueError:
        return None
    if not isinstance(streams, dict) or streams.keys() != {"stdin", "stdout"}:
        return None
    return str(streams["stdin"]), str(streams["stdout"])


def same_output(output: str, expected: str) -> bool:
    """Return whether two outputs agree line by line, up to white space at the ends and the format of numbers."""
    lines = [line.split() for line in output.strip().splitlines()]
    expected_lines = [line.split() for line in expected.strip().splitlines()]
    if len(lines) != len(expected_lines):
        return False
    return all(
        len(words) == len(expected_words) and all(map(same_word, words, expected_words))
        for words, expected_words in zip(lines, expected_lines)
    )


def same_word(word: str, expected: str) -> bool:
    """Return whether two words are equal, as texts or as numbers."""
    if word == expected:
        return True
    if len(word) > 1000 or len(expected) > 1000:
        return False
    try:
        numbers = Decimal(word), Decimal(expected)
    except InvalidOperation:
        return False
    return all(number.is_finite() for number in numbers) and numbers[0] == numbers[1]


# ---------------------------------------------------------------- tests in Python


def run_test(test: str, session: Session, program: str) -> None:
    """Run a test; it fails by an exception. A class of `unittest` fails if one of its tests does, or if it has none."""
    tree = ast.parse(test)
    namespace: dict[str, Any] = {"__name__": "test", "__builtins__": dict(BUILTINS)}
    for name, value in bindings(tree, test, session, program).items():
        namespace[name] = value
    exec(compile(tree, "<test>", "exec"), namespace)

    cases = [value for value in namespace.values() if isinstance(value, type) and issubclass(value, unittest.TestCase)]
    for case in cases:
        suite = unittest.defaultTestLoader.loadTestsFromTestCase(case)
        result = unittest.TestResult()
        suite.run(result)
        if not result.wasSuccessful() or result.skipped or not result.testsRun:
            faults = [*result.failures, *result.errors]
            raise AssertionError(faults[0][1].strip().splitlines()[-1] if faults else "no test ran")


def bindings(tree: ast.Module, test: str, session: Session, program: str) -> dict[str, Any]:
    """Return what the names of a test that it does not define stand for.

    Builtins and names of well-known modules never come from the program, so a program cannot redefine what its tests
    compare with. If a test uses no other name, the function that it tests is called like one of these: then the
    innermost called one that the program defines is taken from the program.
    """
    names = free_names(test)
    known = {name for name in names if name in BUILTINS or name in MODULES or name in MEMBERS}
    from_program = names - known
    if not from_program and (shadowed := shadowed_function(tree, known, program)):
        from_program = {shadowed}
        known.discard(shadowed)

    values = {}
    for name in known - BUILTINS.keys():
        with contextlib.suppress(ImportError):
            module = importlib.import_module(MODULES.get(name) or MEMBERS[name])
            values[name] = module if name in MODULES else getattr(module, name)
    for name in sorted(from_program):
        with contextlib.suppress(NameError):  # the test itself meets it, if it gets there
            values[name] = session.look_up(name)
    return values


def free_names(test: str) -> set[str]:
    """Return the global names that a test uses and does not bind."""
    used: set[str] = set()
    bound: set[str] = set()
    tables = [symtable.symtable(test, "<test>", "exec")]

    while tables:
        table = tables.pop()
        tables += table.get_children()
        is_module = table.get_type() == "module"
        for symbol in table.get_symbols():
            if (symbol.is_assigned() or symbol.is_imported()) and (is_module or symbol.is_declared_global()):
                bound.add(symbol.get_name())
            elif symbol.is_referenced() and (is_module or symbol.is_global()):
                used.add(symbol.get_name())

    return used - bound


def shadowed_function(tree: ast.Module, known: set[str], program: str) -> str | None:
    """Return the innermost function that a test calls by a well-known name and that the program defines."""
    try:
        statements = ast.parse(program).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    defined = {node.name for node in statements if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    called = [node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    return next((name for name in reversed(called) if name in known and name in defined), None)
