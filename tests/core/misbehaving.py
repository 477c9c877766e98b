"""A handler for tests of core/workers.py, which does what the request says."""

import ctypes
import os
import socket
import time

LIMITS = {"cpu_seconds": 1, "wall_seconds": 3, "output_bytes": 10_000}


def warm_up() -> None:
    """Nothing to import."""


def handle(request, isolate, emit) -> None:
    isolate()
    verb, _, rest = request.partition(" ")
    if verb == "return":
        emit(rest)
        return
    if verb == "length":
        emit(len(rest))
        return

    emit("begun")
    if verb == "loop":
        while True:
            pass
    elif verb == "sleep":
        time.sleep(100)
    elif verb == "raise":
        raise ValueError
    elif verb == "exit":
        os._exit(3)
    elif verb == "die":
        ctypes.string_at(0)
    elif verb == "memory":
        _ = "x" * 10**10
    elif verb == "flood":
        while True:
            emit("x" * 1000)
    elif verb == "open":
        open("/etc/passwd")
    elif verb == "fork":
        os.fork()
    elif verb == "socket":
        socket.socket()
