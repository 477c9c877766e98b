"""Keys are nowhere in what a run leaves behind, even if an endpoint repeats them."""

import json
import stat
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.engines.endpoint import PRICES
from tests.harness import tiny_config
from workflow_scripts.config.load import ConfigError, load
from workflow_scripts.core.running import secrets
from workflow_scripts.rehearsal.endpoint import completion

KEY = "sk-the-key-of-an-endpoint-0123456789"
TOKENS = {"HF_TOKEN": "hf_the-token-of-the-hub", "WANDB_API_KEY": "the-key-of-wandb-0123456789"}
JUDGED = "runs/arithmetic/evaluation/judged/r1.jsonl"
PAGE = "runs/arithmetic/report/report.html"


class Endpoint(ThreadingHTTPServer):
    """An endpoint that repeats the key in its errors: first in a refusal, then before each answer."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.refuses = True
        self.failed: set[str] = set()  # requests that met an error
        self.keys: list[str] = []  # that were sent

    def answer(self, key: str, request: str) -> tuple[int, dict]:
        """Return the status and the value that answer a request."""
        self.keys.append(key)
        if self.refuses:
            return 401, {"error": {"message": f"Incorrect API key provided: {key}"}}
        if request not in self.failed:
            self.failed.add(request)
            return 500, {"error": {"message": f"busy, ask again with {key}"}}
        return 200, completion(json.loads(request), "A")


class Handler(BaseHTTPRequestHandler):
    """Passes requests on to the endpoint."""

    def do_POST(self):
        request = self.rfile.read(int(self.headers["Content-Length"])).decode()
        server: Any = self.server
        status, value = server.answer(self.headers["Authorization"].removeprefix("Bearer "), request)

        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the server quiet."""


@pytest.fixture
def endpoint():
    """Yield a running endpoint that repeats keys."""
    server = Endpoint()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def holders(folder: Path, secret: str) -> list[Path]:
    """Return the files below a folder that hold a secret in their bytes or in their name."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if secret.encode() in path.read_bytes() or secret in path.name]


@pytest.mark.long
def test_no_key_is_in_anything_that_a_run_leaves_behind(fork, endpoint, monkeypatch):
    """Training writes wandb's files, the judge calls the endpoint, and the page shows the config."""
    config = tiny_config()
    config["train"]["lr"] = 5e-4
    url = f"http://127.0.0.1:{endpoint.server_port}/v1"
    service = {"base_url": url, "model": "judge", "key_env": "PRIVATE_KEY", "prices": PRICES, "budget": 5.0}
    config["judge"] = {"openai": service}
    fork.configure(config)
    for name, value in (TOKENS | {"PRIVATE_KEY": KEY}).items():
        monkeypatch.setenv(name, value)

    printed = fork.snakemake(JUDGED, fails=True)
    assert "Incorrect API key provided: [PRIVATE_KEY]" in printed
    endpoint.refuses = False
    printed += fork.snakemake(JUDGED, PAGE)

    assert set(endpoint.keys) == {KEY}
    for secret in (KEY, *TOKENS.values()):
        assert secret not in printed
        assert not holders(fork.folder, secret)

    ledgers = list(fork.path("ledger/judge_requests").glob("*.jsonl"))
    assert any("busy, ask again with [PRIVATE_KEY]" in path.read_text() for path in ledgers)
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in ledgers)


def test_secrets_in_a_text_become_the_names_of_their_variables(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "abcdefgh")
    monkeypatch.setenv("OTHER_TOKEN", "abcdefghij")
    monkeypatch.setenv("SHORT_KEY", "a")
    monkeypatch.setenv("PLAIN", "text of a variable")

    text = "abcdefghij, abcdefgh and text of a variable"
    assert secrets.hide(text) == "[OTHER_TOKEN], [SOME_TOKEN] and text of a variable"
    secrets.remember("PLAIN")
    assert secrets.hide(text) == "[OTHER_TOKEN], [SOME_TOKEN] and [PLAIN]"
    secrets._known.clear()


@pytest.mark.parametrize("fault", [{"key_env": KEY}, {"base_url": f"https://me:{KEY}@host/v1"}])
def test_the_config_refuses_a_key_without_showing_it(fault):
    config = tiny_config()
    config["generate"]["openai"] = {"base_url": "http://127.0.0.1:9/v1", "model": "none"} | fault

    with pytest.raises(ConfigError, match=f"generate.openai.{next(iter(fault))}: should ") as error:
        load(config)
    assert KEY not in str(error.value)
