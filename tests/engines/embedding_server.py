"""An OpenAI-compatible embeddings endpoint whose vectors count the letters of a text, three at a time."""

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from sklearn.feature_extraction.text import HashingVectorizer


class EmbeddingServer(ThreadingHTTPServer):
    """Listens on a port of its own. `asked` counts how often each text was sent, and `requests` the requests."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, width: int = 64):
        super().__init__(("127.0.0.1", 0), Handler)
        self.width = width
        self.lock = threading.Lock()
        self.asked: Counter[str] = Counter()
        self.requests = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def vectors(self, texts: list[str]) -> list[list[float]]:
        """Return the vectors of texts; they are not of unit length."""
        vectorizer = HashingVectorizer(analyzer="char_wb", ngram_range=(3, 3), n_features=self.width, norm=None)
        matrix: Any = vectorizer.transform(texts)
        return matrix.toarray().tolist()


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server: Any = self.server
        texts = body["input"]
        with server.lock:
            server.asked.update(texts)
            server.requests += 1

        if not self.path.endswith("/embeddings") or not all(text.strip() for text in texts):
            return self.answer(400, {"error": {"message": "a text is empty, or the path is wrong"}})

        data = [
            {"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(server.vectors(texts))
        ]
        tokens = sum(len(text) // 4 + 1 for text in texts)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        self.answer(200, {"object": "list", "model": body["model"], "data": data[::-1], "usage": usage})

    def answer(self, status: int, value: dict) -> None:
        """Send a JSON answer."""
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def embedding_server(width: int = 64) -> Iterator[EmbeddingServer]:
    """Yield a server that ends with the block."""
    server = EmbeddingServer(width)
    yield server
    server.shutdown()
