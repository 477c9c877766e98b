"""A sandbox service for tests: it speaks Piston's and SandboxFusion's protocols and runs programs of the shell."""

import json
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Service:
    """A service on a port of its own. `failures` holds the statuses of the next answers, before it works again."""

    def __init__(self):
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.failures: list[int] = []
        self.lock = threading.Lock()
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, answer = service.answer(self.path, body)
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Return status and content of an answer."""
        with self.lock:
            self.requests.append((path, body))
            if self.failures:
                return self.failures.pop(0), {"message": "overloaded"}

        if path not in ("/api/v2/execute", "/run_code"):
            return 404, {"message": "no such path"}
        is_piston = path == "/api/v2/execute"
        if body["language"] != "bash":
            return 400, {"message": f"{body['language']}-* runtime is unknown"}

        program = body["files"][0]["content"] if is_piston else body["code"]
        seconds = body["run_timeout"] / (1000 if is_piston else 1)
        return 200, (piston if is_piston else fusion)(program, body["stdin"], seconds)


def run(program: str, stdin: str, seconds: float) -> tuple[str, str, int | None]:
    """Return stdout, stderr and exit status of a program; None as status if it took too long."""
    try:
        done = subprocess.run(["sh", "-c", program], input=stdin, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return "", "", None
    return done.stdout, done.stderr, done.returncode


def piston(program: str, stdin: str, seconds: float) -> dict[str, Any]:
    if "not compiled" in program:
        return {"compile": {"stdout": "", "stderr": "line 1: oops", "code": 1}, "run": {"stdout": "", "code": None}}
    stdout, stderr, status = run(program, stdin, seconds)
    signal = "SIGKILL" if status is None else None
    answer = {"stdout": stdout, "stderr": stderr, "code": status, "signal": signal, "output": stdout + stderr}
    return {"language": "bash", "version": "5.2.0", "run": answer}


def fusion(program: str, stdin: str, seconds: float) -> dict[str, Any]:
    if "not compiled" in program:
        compiled = {"status": "Finished", "return_code": 1, "stdout": "", "stderr": "line 1: oops"}
        return {"status": "Failed", "message": "", "compile_result": compiled, "run_result": None}
    if "the service breaks" in program:
        return {"status": "SandboxError", "message": "no space left", "compile_result": None, "run_result": None}
    stdout, stderr, status = run(program, stdin, seconds)
    ran = {
        "status": "TimeLimitExceeded" if status is None else "Finished",
        "execution_time": 0.01,
        "return_code": status,
        "stdout": stdout,
        "stderr": stderr,
    }
    return {"status": "Failed" if status else "Success", "message": "", "compile_result": None, "run_result": ran}
