"""An HTTP proxy that spoils a share of the answers, in ways that real endpoints are known for."""

import contextlib
import http.client
import json
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KINDS = ("429", "500", "502", "timeout", "reset", "truncated", "no choices", "two choices", "sent twice")
# Further faults, of well-formed answers.
CHANGES = {
    "no choices": lambda data: data.update(choices=[]),
    "two choices": lambda data: data.update(choices=data["choices"] * 2),
    "refusal": lambda data: data["choices"][0]["message"].update(content=None, refusal="I cannot help with that."),
    "content_filter": lambda data: data["choices"][0].update(finish_reason="content_filter"),
    "empty": lambda data: data["choices"][0].update(finish_reason="stop", message={"role": "assistant", "content": ""}),
    "no vectors": lambda data: data.update(data=[]),
    "no usage": lambda data: data.update(usage=None),
}


class FaultyProxy(ThreadingHTTPServer):
    """Listens on a port of its own before an OpenAI-compatible server.

    `asked` counts the requests of each prompt, and `sent` holds the text of the server's answer to it.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, upstream: int, share: float = 0.0, kinds=KINDS, hang: float = 3.0, seed: int = 0, delay: float = 0.0
    ):
        """
        Args:
            upstream: the server's port.
            share: the share of the answers that are spoilt.
            kinds: the ways in which they are.
            hang: seconds until a request that times out is dropped.
            delay: seconds that each answer takes longer.
        """
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream = upstream
        self.share = share
        self.kinds = kinds
        self.hang = hang
        self.delay = delay
        self.random = random.Random(seed)
        self.lock = threading.Lock()
        self.faults: Counter[str | None] = Counter()
        self.asked: Counter[str] = Counter()
        self.sent: dict[str, str] = {}
        self.times: list[float] = []  # of the requests' arrivals
        self.at_once = 0  # requests that wait for their answers for the delay
        self.most_at_once = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def fault(self, prompt: str) -> str | None:
        """Count a request and return the fault that its answer gets, or None."""
        with self.lock:
            self.asked[prompt] += 1
            self.times.append(time.monotonic())
            kind = self.random.choice(self.kinds) if self.random.random() < self.share else None
            self.faults[kind] += 1
        return kind

    def handle_error(self, request, client_address):
        pass  # clients that give up are expected here


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.count_at_once(1)
        time.sleep(self.server.delay)
        self.count_at_once(-1)  # before the answer, after which the client may send its next request at once
        self.reply(body)

    def count_at_once(self, change: int) -> None:
        with self.server.lock:
            self.server.at_once += change
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)

    def reply(self, body: bytes) -> None:
        """Answer a request, with or without a fault."""
        request = json.loads(body)
        is_chat = "messages" in request
        prompt = request["messages"][-1]["content"] if is_chat else "\n".join(request["input"])
        kind = self.server.fault(prompt)

        if kind in ("429", "500", "502"):
            retry = {"Retry-After": "1"} if kind == "429" else {}
            return self.answer(int(kind), b'{"error": {"message": "injected"}}', retry)
        if kind == "timeout":
            time.sleep(self.server.hang)
        if kind in ("timeout", "reset"):
            return self.reset()
        if kind == "400 content_filter":
            return self.answer(400, b'{"error": {"message": "injected", "code": "content_filter"}}')

        status, data = self.forward(body)
        if status == 200 and is_chat:
            self.server.sent[prompt] = json.loads(data)["choices"][0]["message"]["content"] or ""
        if kind == "truncated":
            data = data[: len(data) // 2]
        elif kind in CHANGES:
            changed = json.loads(data)
            CHANGES[kind](changed)
            data = json.dumps(changed).encode()

        for _ in range(2 if kind == "sent twice" else 1):
            self.answer(status, data)

    def forward(self, body: bytes) -> tuple[int, bytes]:
        """Return the server's status and answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.upstream, timeout=60)
        connection.request("POST", self.path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()

    def answer(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        """Send an answer to the client."""
        self.send_response(status)
        common = {"Content-Type": "application/json", "Content-Length": str(len(data))}
        for name, value in (common | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def reset(self) -> None:
        """Drop the connection without an answer."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()


class ConstantAnswer(BaseHTTPRequestHandler):
    """An endpoint whose model always says the same."""

    text = ""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": self.text}}
        body = json.dumps({"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]})
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def says(text: str) -> Iterator[str]:
    """Yield the base URL of a server whose model always says `text`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Says", (ConstantAnswer,), {"text": text}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
