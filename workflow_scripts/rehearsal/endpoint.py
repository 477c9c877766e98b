"""A local OpenAI-compatible server for rehearsals: it speaks in place of teachers, simulated users and judges.

What it says comes from the task (`Rehearsal.reply`). In place of a judge it says A, B or tie, or a grade from 1 to 10.

    python -m workflow_scripts.rehearsal.endpoint --task recommend --port 20123
"""

import json
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from workflow_scripts import tasks
from workflow_scripts.core.running.cli import add_task_arguments, arguments, run, task_files
from workflow_scripts.core.running.replicas import die_with_parent

JUDGE = "Reply with one word: A, B or tie."  # how the question to a judge ends
VERDICTS = ("A", "B", "tie")
GRADE = "Reply with one number from 1 (worst) to 10 (best)."  # how the question for a grade ends
WIDTH = 64  # of an embedding


def reply_to(messages: list[Any], rehearsal: Any) -> str:
    """Return what is said in a conversation."""
    last = messages[-1]["content"]
    if last.rstrip().endswith(JUDGE):
        return VERDICTS[zlib.crc32(last.encode()) % len(VERDICTS)]
    if last.rstrip().endswith(GRADE):
        return str(1 + zlib.crc32(last.encode()) % 10)
    return rehearsal.reply(messages)


def completion(request: dict[str, Any], text: str) -> dict[str, Any]:
    """Return a chat completion with a text, as the protocol has it. Words count as tokens."""
    prompt = sum(len(message["content"].split()) for message in request["messages"])
    answer = len(text.split())
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {
        "id": "rehearsal",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": request["model"],
        "choices": [choice],
        "usage": {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer},
    }


def embeddings(request: dict[str, Any]) -> dict[str, Any]:
    """Return embeddings of texts, as the protocol has them: texts with common letters are near to each other."""
    texts = [request["input"]] if isinstance(request["input"], str) else request["input"]
    data = []
    for number, text in enumerate(texts):
        vector = [1.0] * WIDTH
        for start in range(len(text) - 2):
            vector[zlib.crc32(text[start : start + 3].lower().encode()) % WIDTH] += 1.0
        data.append({"object": "embedding", "index": number, "embedding": vector})

    words = sum(len(text.split()) for text in texts)
    usage = {"prompt_tokens": words, "total_tokens": words}
    return {"object": "list", "data": data, "model": request["model"], "usage": usage}


def serve(port: int, rehearsal: Any) -> ThreadingHTTPServer:
    """Return a server that answers on this port of this machine, once it is told to (`serve_forever`)."""
    lock = threading.Lock()  # parts of tasks are not meant for several threads

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                if self.path.endswith("/embeddings"):
                    body = embeddings(request)
                else:
                    with lock:
                        text = reply_to(request["messages"], rehearsal)
                    body = completion(request, text)
                status = 200
            except Exception as error:  # whatever it is, the client should see it, and the server goes on
                status, body = 400, {"error": {"message": f"{type(error).__name__}: {error}", "code": "rehearsal"}}

            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing: the stages tell what they ask."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def main() -> None:
    parser = arguments(__doc__)
    add_task_arguments(parser)
    parser.add_argument("--port", type=int, required=True, help="port of this machine")
    args = parser.parse_args()

    die_with_parent()
    serve(args.port, tasks.load(args.task, "Rehearsal", args.task_settings, task_files(args))).serve_forever()


if __name__ == "__main__":
    run(main)
