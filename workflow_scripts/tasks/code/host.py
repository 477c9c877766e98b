"""The process that starts programs under test and passes calls to them, with limits per test.

It stands between the process that runs the tests and that of the program, so that the former can be isolated and still
get a new process for the program after one has died. It is forked before the tests arrive, and hence has never held
what they expect.
"""

import contextlib
import json
import os
import select
import signal
import tempfile
import time
from typing import Any

from workflow_scripts.core import sandbox
from workflow_scripts.core.workers import ended_early
from workflow_scripts.tasks.code import program

MOST_BYTES = 10 << 20  # of a reply, and of the output of a script
TICK = 0.1  # seconds between looks at a program's CPU time


class TooLong(Exception):
    """Raised if a program exceeds its limits. Its text says which."""


class Hosted:
    """A program in its own process."""

    def __init__(self, pid: int, calls: int, replies: int):
        self.pid = pid
        self.calls = calls
        self.replies = replies
        self.status: int | None = None

    def cpu_seconds(self) -> float:
        """Return the CPU time that the process has used."""
        with contextlib.suppress(OSError):
            return time.clock_gettime((~self.pid << 3) | 2)  # the clock of a process, as clock_getcpuclockid gives it
        return 0.0

    def read(self, limits: dict[str, int], begun: float, deadline: float) -> bytes:
        """Read what there is, up to 64 kB; nothing at the end. Raise TooLong if a limit is exceeded first."""
        while True:
            ready, _, _ = select.select([self.replies], [], [], TICK)
            if ready:
                return os.read(self.replies, 65536)
            if self.cpu_seconds() - begun > limits["cpu_seconds"]:
                raise TooLong(f"used more than {limits['cpu_seconds']:.3g} s of CPU")
            if time.monotonic() > deadline:
                raise TooLong(f"took more than {limits['wall_seconds']} s")

    def end(self, patience: float = 0.0) -> None:
        """End the process if it does not end by itself within `patience` seconds."""
        deadline = time.monotonic() + patience
        while self.status is None and time.monotonic() < deadline:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self.status = status
            time.sleep(0.001)
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.status = os.waitpid(self.pid, 0)[1]
        for descriptor in (self.calls, self.replies):
            with contextlib.suppress(OSError):
                os.close(descriptor)


def start(source: str, is_script: bool, limits: dict[str, int], is_isolated: bool, scratch: str) -> Hosted:
    """Start a program in a process of its own, in a scratch folder. Raise OSError if the machine has no room for it."""
    calls_read, calls_write = os.pipe()
    replies_read, replies_write = os.pipe()
    ready, setup = os.pipe()
    pid = os.fork()

    if pid == 0:
        status = 1
        pipes = [calls_read, replies_write]
        null = os.open(os.devnull, os.O_RDWR)
        descriptors = [*pipes, null, setup] if is_script else [null, null, null, *pipes, setup]
        own_limits = limits | {"cpu_seconds": 20 * limits["cpu_seconds"]}  # of all tests; each has its own limit
        try:
            program.prepare_process(descriptors, own_limits, is_isolated, scratch)
        except BaseException as fault:
            os.write(len(descriptors) - 1, f"{type(fault).__name__}: {fault}"[:500].encode())
            os._exit(1)

        os.close(len(descriptors) - 1)  # the program starts
        with contextlib.suppress(BaseException):
            if is_script:
                status = program.run_script(source)
            else:
                program.serve(source)
                status = 0
        os._exit(status)

    for descriptor in (calls_read, replies_write, setup):
        os.close(descriptor)
    hosted = Hosted(pid, calls_write, replies_read)
    fault = os.read(ready, 1000)
    os.close(ready)
    if fault:
        hosted.end()
        raise OSError(fault.decode(errors="replace"))
    return hosted


class Host:
    """Serves commands of the process that runs the tests."""

    def __init__(self, is_isolated: bool, scratch: str):
        self.is_isolated = is_isolated
        self.scratch = scratch  # the folder that a program shares with its tests; a script has one of its own
        self.hosted: Hosted | None = None

    def command(self, command: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a command; {"no room": reason} if the machine cannot start a program, several times."""
        for seconds in (0.1, 1.0, 5.0, None):
            try:
                return self.perform(command)
            except OSError as error:
                reason = str(error)
            if seconds:
                time.sleep(seconds)
        return {"no room": reason}

    def perform(self, command: dict[str, Any]) -> dict[str, Any]:
        """Do what a command says. Return {"reply": what the program says}, or {"ended": reason} if it is gone.

        What a program says is not read here, and it stands below a key of its own. So it can neither pass for an answer
        of the host nor disturb it.
        """
        limits = command["limits"]
        if command["do"] == "script":
            return self.run_script(command["program"], command["stdin"], limits)

        if command["do"] == "load":
            self.close()
            self.hosted = start(command["program"], False, limits, self.is_isolated, self.scratch)
        elif self.hosted is None:
            return {"ended": "the program has ended"}

        assert self.hosted is not None
        begun, deadline = self.hosted.cpu_seconds(), time.monotonic() + limits["wall_seconds"]
        try:
            if command["do"] != "load":
                send(self.hosted, json.dumps(command["call"]).encode(), limits, begun, deadline)
            reply = self.reply(limits, begun, deadline).decode(errors="replace")
            return {"reply": reply, "cpu_seconds": self.hosted.cpu_seconds() - begun}
        except (TooLong, EOFError, ValueError, OSError) as fault:
            hosted = self.hosted
            self.close(patience=1.0 if isinstance(fault, EOFError) else 0.0)
            if isinstance(fault, EOFError):
                return {"ended": ended_early(hosted.status or 0, limits) or "the program closed its pipe"}
            return {"ended": str(fault) or type(fault).__name__}

    def reply(self, limits: dict[str, int], begun: float, deadline: float) -> bytes:
        """Read one frame of the program."""
        assert self.hosted is not None
        received = b""
        while len(received) < program.HEAD.size or len(received) < program.HEAD.size + length_of(received):
            chunk = self.hosted.read(limits, begun, deadline)
            if not chunk:
                raise EOFError("it closed its pipe")
            received += chunk
        return received[program.HEAD.size : program.HEAD.size + length_of(received)]

    def run_script(self, source: str, stdin: str, limits: dict[str, int]) -> dict[str, Any]:
        """Run a program that reads stdin, and return what it printed and how it ended."""
        scratch = tempfile.mkdtemp(prefix="sandbox-")
        try:
            hosted = start(source, True, limits, self.is_isolated, scratch)
        except OSError:
            sandbox.remove_scratch(scratch)
            raise
        begun, deadline = 0.0, time.monotonic() + limits["wall_seconds"]
        output = b""
        fault = None
        pending = stdin.encode(errors="surrogatepass")

        try:
            while True:
                pending = feed(hosted, pending)
                chunk = hosted.read(limits, begun, deadline) if not pending else read_if_ready(hosted, limits, deadline)
                if chunk == b"":
                    break
                output += chunk or b""
                if len(output) > MOST_BYTES:
                    raise TooLong(f"printed more than {MOST_BYTES} bytes")
            while not (ended := os.waitpid(hosted.pid, os.WNOHANG))[0]:  # it closed its output and goes on
                if time.monotonic() > deadline or hosted.cpu_seconds() > limits["cpu_seconds"]:
                    raise TooLong("did not end after its output")
                time.sleep(0.001)
            hosted.status = ended[1]
            fault = ended_early(hosted.status, limits)
        except TooLong as excess:
            fault = str(excess)
        finally:
            hosted.end()
            sandbox.remove_scratch(scratch)

        return {"output": output.decode(errors="replace"), "fault": fault}

    def close(self, patience: float = 0.0) -> None:
        if self.hosted is not None:
            self.hosted.end(patience)
        self.hosted = None


def length_of(received: bytes) -> int:
    """Return the length of the frame that begins here. Raise ValueError if it is too long."""
    length = program.HEAD.unpack(received[: program.HEAD.size])[0]
    if length > MOST_BYTES:
        raise ValueError(f"a result is longer than {MOST_BYTES} bytes")
    return length


def send(hosted: Hosted, content: bytes, limits: dict[str, int], begun: float, deadline: float) -> None:
    """Write a frame to a program, which may not read it."""
    pending = program.HEAD.pack(len(content)) + content
    while pending:
        pending = feed(hosted, pending, is_last=False)
        if pending and (hosted.cpu_seconds() - begun > limits["cpu_seconds"] or time.monotonic() > deadline):
            raise TooLong("did not read its call")


def feed(hosted: Hosted, pending: bytes, is_last: bool = True) -> bytes:
    """Write as much to a program's input as fits, and return the rest. Close it behind the last byte."""
    if not pending:
        if is_last and hosted.calls >= 0:
            os.close(hosted.calls)
            hosted.calls = -1
        return b""
    _, writable, _ = select.select([], [hosted.calls], [], TICK)
    if not writable:
        return pending
    try:
        pending = pending[os.write(hosted.calls, pending[:4096]) :]
    except BrokenPipeError:
        pending = b""
    return feed(hosted, pending, is_last) if not pending else pending


def read_if_ready(hosted: Hosted, limits: dict[str, int], deadline: float) -> bytes | None:
    """Return what a program printed; None if it printed nothing yet. Raise TooLong if a limit is exceeded."""
    if select.select([hosted.replies], [], [], 0)[0]:
        return os.read(hosted.replies, 65536)
    if time.monotonic() > deadline or hosted.cpu_seconds() > limits["cpu_seconds"]:
        raise TooLong("did not read its input in time")
    return None


def serve(commands: int, replies: int, is_isolated: bool, scratch: str) -> None:
    """Serve commands until there are no more; then end the program, and remove the folder."""
    host = Host(is_isolated, scratch)
    try:
        while True:
            command = json.loads(program.read_frame(commands))
            program.write_frame(replies, json.dumps(host.command(command)).encode())
    except (EOFError, BrokenPipeError):
        pass
    finally:
        host.close()
        sandbox.remove_scratch(scratch)
