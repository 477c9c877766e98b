"""Work on text of a model, in isolated processes, several at a time: programs, comparisons and tests.

`Workers` runs programs as `Sandbox` does, and the requests of a *handler*: a module of this package that works on text
that a model wrote, such as the comparison of two formulas. A handler defines

    warm_up()                             called once per process, to import what requests need
    handle(request, isolate, emit)        works on one request; a JSON value is a result once it is passed to `emit`
    LIMITS                                limits that differ from those of `Sandbox`
    begin(is_isolated)                    optional: called in the fork before it reads the request, to fork processes
                                          that must not know it; `handle` gets what it returns as a fourth argument

Each worker process imports its handler and then forks for each request. The fork reads the request itself, so that no
process that handles a later request has ever held it. `handle` calls `isolate()` before it looks at text of a model:
from then on, the process can do nothing but compute, within its limits. If it ends early, the values that it emitted
remain, and the outcome has the reason. So a text can cost its own result, but neither another one nor the stage.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import selectors
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from workflow_scripts.core import sandbox
from workflow_scripts.core.sandbox import Sandbox

MOST_PROCESSES = 8
HEAD = struct.Struct("<Q")  # the length of a request, before the request
VALUE, FAULT, NO_ROOM = b"=", b"!", b"?"  # the first byte of a line that a handler's process writes


class Outcome(NamedTuple):
    """What a handler made of a request."""

    values: list[Any]  # what it emitted
    fault: str | None  # why it ended early, or None


class Workers:
    """Runs programs and handlers: `with Workers() as run: run("print(1 + 1)")["output"]`.

    Args:
        isolate: whether the processes are isolated.
        processes: how many run at a time; by default as many as this process may use cores, up to MOST_PROCESSES.
        limits: limits of programs, as those of `Sandbox`.
    """

    def __init__(self, isolate: bool = True, processes: int | None = None, **limits: int):
        self.isolate = isolate
        self.processes = processes or min(len(os.sched_getaffinity(0)), MOST_PROCESSES)
        self.sandbox = Sandbox(isolate, **limits)
        self.handlers: dict[str, list[subprocess.Popen[bytes]]] = {}

    def __enter__(self):
        self.sandbox.__enter__()
        return self

    def __exit__(self, *_):
        self.sandbox.__exit__()
        for processes in self.handlers.values():
            for process in processes:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()  # type: ignore[union-attr]
                process.wait()
        self.handlers = {}

    # ------------------------------------------------------------ programs

    def __call__(self, program: str) -> dict[str, Any]:
        """Run a program and return {"output": str, "error": str or None}. Identical programs run once."""
        return self.sandbox(program)

    def run_all(self, programs: Sequence[str]) -> None:
        """Run programs side by side, so that `self(program)` then returns at once."""
        missing = [program for program in dict.fromkeys(programs) if program not in self.sandbox.cache]
        self.sandbox.start(min(self.processes, len(missing)))

        if missing:
            with ThreadPoolExecutor(self.processes) as threads:
                list(threads.map(self.sandbox, missing))

    # ------------------------------------------------------------ handlers

    def handle(self, handler: ModuleType, requests: Sequence[Any]) -> list[Outcome]:
        """Return what a handler makes of each request, in order.

        Raises:
            RuntimeError: if a worker process itself fails, for example because the machine has no memory left. This is
                no fault of a request, so no outcome is guessed.
        """
        workers = self.handlers.setdefault(handler.__name__, [])
        while len(workers) < min(self.processes, len(requests)):
            workers.append(self._start(handler.__name__))

        outcomes: list[Any] = [None] * len(requests)
        todo = iter(enumerate(requests))
        with selectors.DefaultSelector() as waiting:
            for worker in workers:
                _send_next(worker, todo, waiting)
            while waiting.get_map():
                for key, _ in waiting.select():
                    number, worker = key.data
                    line = worker.stdout.readline()
                    if not line:
                        raise RuntimeError(f"a worker of {handler.__name__} ended (exit status {worker.wait()})")
                    answer = json.loads(line)
                    if answer["no_room"]:
                        raise no_room(answer["no_room"])
                    outcomes[number] = Outcome([json.loads(value) for value in answer["values"]], answer["fault"])
                    waiting.unregister(worker.stdout)
                    _send_next(worker, todo, waiting)

        return outcomes

    def _start(self, handler: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-I", __file__, handler, "isolate" if self.isolate else "off"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MPLBACKEND": "Agg"},
        )


def no_room(fault: str) -> RuntimeError:
    """Return the error of a request that could not be handled for no fault of its own."""
    return RuntimeError(
        f"a process could not start, for no fault of the text that it should work on: {fault}. Nothing was graded; "
        "make room (disk, processes, memory) and run again"
    )


def _send_next(worker: Any, todo: Any, waiting: selectors.BaseSelector) -> None:
    """Send the next request to a worker that is free, if there is one."""
    number, request = next(todo, (None, None))
    if number is None:
        return
    text = json.dumps(request).encode()
    try:
        worker.stdin.write(HEAD.pack(len(text)) + text)
        worker.stdin.flush()
    except BrokenPipeError as fault:
        raise RuntimeError(f"a worker process ended (exit status {worker.wait()})") from fault
    waiting.register(worker.stdout, selectors.EVENT_READ, (number, worker))


# ---------------------------------------------------------------- a worker process


def serve(name: str, is_isolated: bool) -> None:
    """Fork for each request that arrives on stdin, and write what became of it as a line of JSON."""
    sandbox.libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG: end with the caller
    sandbox.libc.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: what a killed fork leaves behind comes here
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    handler = importlib.import_module(name)
    handler.warm_up()
    limits = sandbox.DEFAULTS | handler.LIMITS
    if is_isolated:
        sandbox.enter_namespaces()
    gc.freeze()

    arrival = select.poll()
    arrival.register(0, select.POLLIN)
    while arrival.poll()[0][1] & select.POLLIN:
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read_end)
            serve_once(handler, limits, is_isolated, write_end)
        os.close(write_end)
        answer = collect(pid, read_end, limits)
        os.close(read_end)
        reap_orphans()
        print(json.dumps(answer), flush=True)


def reap_orphans() -> None:
    """Wait for the processes of earlier forks that have ended, so that none stays a zombie."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def serve_once(handler: Any, limits: dict[str, int], is_isolated: bool, pipe: int) -> None:
    """Read the request, handle it, and end this process."""
    sandbox.libc.prctl(1, signal.SIGKILL, 0, 0, 0)
    status = 1

    def emit(value: Any) -> None:
        write_all(pipe, VALUE + json.dumps(value).encode() + b"\n")

    def or_stop(step: Callable[[], Any]) -> Any:
        try:
            return step()
        except BaseException as fault:
            write_all(pipe, NO_ROOM + f"{type(fault).__name__}: {fault}"[:500].replace("\n", " ").encode() + b"\n")
            os._exit(1)

    def isolate(scratch: str = "") -> None:
        or_stop(lambda: enclose(limits, is_isolated, scratch))

    try:
        begun = [or_stop(lambda: handler.begin(is_isolated))] if hasattr(handler, "begin") else []
        request = read_request()
        quiet = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(quiet, descriptor)
        handler.handle(request, isolate, emit, *begun)
        status = 0
    except BaseException as fault:
        with contextlib.suppress(BaseException):
            write_all(pipe, FAULT + type(fault).__name__.encode() + b"\n")
    os._exit(status)


def enclose(limits: dict[str, int], is_isolated: bool, scratch: str) -> None:
    """Leave this process nothing but its descriptors, its scratch folder (none if it is empty) and its limits."""
    sandbox.set_limits(limits)
    if is_isolated:
        sandbox.restrict_files(scratch)
        sandbox.drop_capabilities()
        sandbox.restrict_calls()


def read_request() -> Any:
    """Read exactly one request from stdin, without a buffer that would take a part of the next one."""

    def read_bytes(count: int) -> bytes:
        chunks = []
        while count:
            chunk = os.read(0, min(count, 1 << 20))
            if not chunk:
                raise EOFError
            chunks.append(chunk)
            count -= len(chunk)
        return b"".join(chunks)

    return json.loads(read_bytes(HEAD.unpack(read_bytes(HEAD.size))[0]))


def write_all(descriptor: int, data: bytes) -> None:
    """Write all bytes to a pipe."""
    while data:
        data = data[os.write(descriptor, data) :]


def collect(pid: int, pipe: int, limits: dict[str, int]) -> dict[str, Any]:
    """Read the lines of a handler's process until it ends, or takes too long; make sure that it is gone."""
    deadline = time.monotonic() + limits["wall_seconds"]
    received = bytearray()
    fault = None

    while True:
        ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            fault = f"took more than {limits['wall_seconds']} s"
            break
        chunk = os.read(pipe, 65536)
        if not chunk:
            break
        received += chunk
        if len(received) > limits["output_bytes"]:
            fault = "the results are too long"
            break

    if fault:
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    lines = bytes(received).split(b"\n")[:-1]
    reasons = [line[1:].decode(errors="replace") for line in lines if line.startswith(FAULT)]
    values = [line[1:].decode() for line in lines if line.startswith(VALUE)]
    no_room = next((line[1:].decode(errors="replace") for line in lines if line.startswith(NO_ROOM)), None)
    reason = fault or next(iter(reasons), None) or ended_early(status, limits)
    return {"values": values, "fault": reason, "no_room": no_room}


def ended_early(status: int, limits: dict[str, int]) -> str | None:
    """Return why a process ended, by its status; None if it ended by itself."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        is_slow = number in (signal.SIGXCPU, signal.SIGKILL)
        return f"used more than {limits['cpu_seconds']} s of CPU" if is_slow else f"died of signal {number}"
    return f"exit status {os.WEXITSTATUS(status)}" if os.WEXITSTATUS(status) else None


# What serves requests from a supervisor, and what a handler's own processes need of it.
Isolate = Callable[..., None]  # with a scratch folder, or without
Emit = Callable[[Any], None]

if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2] == "isolate")
