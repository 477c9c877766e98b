"""An engine that stays on its node between jobs, in a server, and the engine of a job that asks it.

The server is this module, started by the first job that needs it (core/running/residents.py). They speak JSON lines
over a Unix socket: first how answers are sampled, and what the engine is; then requests, and completions in the order
in which they are finished. A server that dies is started again, and what it had not answered is asked again.
"""

import argparse
import asyncio
import contextlib
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from typing import Any

from workflow_scripts import engines
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.identity import digest
from workflow_scripts.core.pretrained import AutoTokenizer
from workflow_scripts.core.running import residents
from workflow_scripts.core.running.cli import run, say
from workflow_scripts.core.running.status import MEND_FIRST_STATUS
from workflow_scripts.engines import Completion, Request

MODULE = "workflow_scripts.engines._resident"
LONGEST = 2**28  # bytes of a line
DEATHS = 3  # of servers, one after another without an answer, that end the job


def as_line(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


# ---------------------------------------------------------------- the job's side


class Engine:
    """Asks a resident engine; it serves this job alone until the job ends."""

    def __init__(
        self,
        name: str,
        model: str,
        identity: str,
        settings: dict[str, Any],
        sampling: dict[str, Any],
        stop: Sequence[str],
        seconds: float,
        gpus: int,
    ):
        """
        Args:
            name: the engine's name.
            model: its folder.
            identity: what identifies the model's weights and the engine's code.
            settings: the keys of the section `generate` that the engine is loaded with, as JSON.
            sampling: a version's section, as JSON.
            stop: texts that end a turn.
            seconds: how long a new server stays when no job uses it.
            gpus: how many a new server takes.
        """
        place = [sys.executable, os.getcwd(), residents.surroundings()]
        self.kind = digest([name, model, identity, settings, gpus, place])
        arguments = ["--engine", name, "--model", model, "--settings", json.dumps(settings), "--seconds", str(seconds)]
        self.arguments = arguments
        self.gpus = gpus
        self.hello = as_line({"sampling": sampling, "stop": list(stop)})
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.starts = 0
        self.deaths = 0  # since the last answer
        self.usage: dict[str, Any] = {}

        self._use_server()
        while not (facts := self._ask_for_facts()):
            self._replace_server()
        self.version = facts["version"]
        self.window = facts["window"]
        self.playing = facts["playing"]

    def _ask_for_facts(self) -> dict[str, Any]:
        """Return what the engine is; nothing if its server is dying."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.server.place.socket))
            with connection.makefile("rwb") as file:
                file.write(self.hello)
                file.flush()
                line = file.readline()
            return json.loads(line) if line.endswith(b"\n") else {}
        return {}

    def _replace_server(self) -> None:
        """Use another server in place of one that has died. Raise RuntimeError after several deaths in a row."""
        self.deaths += 1
        if self.deaths > DEATHS:
            raise RuntimeError(f"the engine's server died {self.deaths} times without an answer")
        say("the engine's server has died; another one is started")

        self.server.place.remove()
        self.server.end()
        self._use_server()

    def _use_server(self) -> None:
        def command(place: str) -> list[str]:
            return residents.own_command(MODULE, "--name", place, *self.arguments, gpus=self.gpus)

        while True:
            try:
                self.server = residents.use(self.kind, command)
                break
            except residents.ServerFailed as error:
                if error.status == MEND_FIRST_STATUS:
                    raise BadInput(str(error)) from None
                self.deaths += 1
                if error.status > 0 or self.deaths > DEATHS:  # else something has killed it
                    raise

        self.starts += self.server.is_new
        if not self.server.is_new:
            say("the engine that an earlier job has loaded is asked")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Stay connected to the server, and leave it to other jobs at the end."""
        if not self.server.is_held:
            self._use_server()
        self.renewing = asyncio.Lock()
        self.connection = await self._connect()
        try:
            yield
            self.usage = {"engine_starts": self.starts}
            with contextlib.suppress(ConnectionError):
                self.usage |= await self.connection.ask({"usage": True})
        finally:
            self.connection.close()
            self.server.end()

    async def _connect(self) -> "Connection":
        streams = await asyncio.open_unix_connection(str(self.server.place.socket), limit=LONGEST)
        return await Connection.open(*streams, self.hello)

    async def complete(self, request: Request) -> Completion:
        """Return the completion of a request, while others are computed."""
        while True:
            connection = self.connection
            try:
                completion = Completion(**await connection.ask(asdict(request)))
                self.deaths = 0
                return completion
            except ConnectionError:
                async with self.renewing:
                    if self.connection is connection:  # else another request has renewed it
                        await self._renew()

    async def _renew(self) -> None:
        self.connection.close()
        while True:
            await asyncio.to_thread(self._replace_server)
            with contextlib.suppress(OSError):  # this server has died too
                self.connection = await self._connect()
                return


class Connection:
    """A connection to the server. After it is lost, `ask` raises ConnectionError."""

    listener: asyncio.Task[None]

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.reader = reader
        self.writer = writer
        self.waiting: dict[int, asyncio.Future[Any]] = {}
        self.count = 0
        self.is_lost = False

    @classmethod
    async def open(cls, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hello: bytes) -> "Connection":
        """Return a connection that has said how answers are sampled."""
        connection = cls(reader, writer)
        writer.write(hello)
        await reader.readline()
        connection.listener = asyncio.create_task(connection._listen())
        return connection

    async def ask(self, question: dict[str, Any]) -> Any:
        """Return the server's answer."""
        if self.is_lost:
            raise ConnectionError
        number = self.count
        self.count += 1
        self.waiting[number] = asyncio.get_running_loop().create_future()
        self.writer.write(as_line({"number": number, **question}))

        answer = await self.waiting[number]
        if "error" in answer:
            raise RuntimeError(f"the engine's server: {answer['error']}")
        return answer["answer"]

    async def _listen(self) -> None:
        try:
            with contextlib.suppress(ConnectionError):
                async for line in self.reader:
                    if not line.endswith(b"\n"):
                        break
                    answer = json.loads(line)
                    future = self.waiting.pop(answer["number"])
                    if not future.done():
                        future.set_result(answer)
        finally:
            self.is_lost = True
            for future in self.waiting.values():
                if not future.done():
                    future.set_exception(ConnectionError())

    def close(self) -> None:
        """End the connection; the server drops what it has not answered."""
        self.listener.cancel()
        self.writer.close()


# ---------------------------------------------------------------- the server's side


async def serve(engine: Any, keeper: residents.Keeper) -> None:
    """Serve one job after another until it is time to leave."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks: set[asyncio.Task] = set()

        async def answer(question: dict[str, Any]) -> None:
            number = question.pop("number")
            try:
                result = {"answer": engine.usage if "usage" in question else asdict(await ask(question))}
            except Exception as error:
                result = {"error": f"{type(error).__name__}: {error}"}
            if not writer.is_closing():
                writer.write(as_line({"number": number} | result))

        async def ask(question: dict[str, Any]) -> Completion:
            return await engine.complete(Request(**question))

        with contextlib.suppress(ConnectionError):
            if line := await reader.readline():
                engine.sample_by(**json.loads(line))
                writer.write(as_line({"version": engine.version, "window": engine.window, "playing": engine.playing}))
            async for line in reader:
                task = asyncio.create_task(answer(json.loads(line)))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        for task in tasks:
            task.cancel()
        writer.close()

    async with engine.running():
        path = str(keeper.place.socket)
        listener = await asyncio.start_unix_server(talk, path, limit=LONGEST)
        while not keeper.is_over():
            if engine.fault:
                raise RuntimeError("the engine has failed") from engine.fault
            await asyncio.sleep(1)
        listener.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description="Serve an engine to the jobs of a node.")
    parser.add_argument("--name", required=True, help="the name of this server's files")
    parser.add_argument("--engine", required=True, help="the engine's name")
    parser.add_argument("--model", required=True, help="the model's folder")
    parser.add_argument("--settings", type=json.loads, required=True, help="keys of the section `generate`, as JSON")
    parser.add_argument("--seconds", type=float, required=True, help="how long to stay when no job uses it")
    args = parser.parse_args()

    sampling = {"temperature": 1.0, "top_p": 1.0, "top_k": 0}  # each job says what it wants
    engine = engines.load(args.engine, model=args.model, settings=args.settings, sampling=sampling, stop=())
    keeper = residents.Keeper(args.name, args.seconds)
    asyncio.run(serve(engine, keeper))


if __name__ == "__main__":
    run(main)
