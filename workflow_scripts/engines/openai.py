"""Any OpenAI-compatible endpoint: a chat engine for teachers, simulated users and judges, and embeddings of texts.

Answered requests are never sent again, and the budget holds over restarts; see `_client.py`.
"""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import openai
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.identity import digest
from workflow_scripts.core.running.ledger import Ledger
from workflow_scripts.engines import Chat, Reply
from workflow_scripts.engines._client import Client, Entries, Transient

REMOTE = True  # it returns text, and needs no GPU
PACKAGES = ("openai", "httpx2", "tenacity")

FILTERED = ("content_filter", "content_policy_violation")  # codes of a 400 that neither a retry nor a person can mend
TEXTS = 64  # that are embedded by one request


class Engine(Client):
    """Chat messages in, text out."""

    ANSWER = "text"

    def __init__(
        self, settings: dict[str, Any], sampling: dict[str, Any], stop: Sequence[str], ledger: Ledger, purpose: str
    ):
        """
        Args:
            settings: a section of the config for an endpoint, as JSON.
            sampling: temperature and top_p.
            stop: strings after which the environment continues.
            ledger: the run's ledger of paid requests, which all purposes share.
            purpose: what the requests are for, in messages and in the account.
        """
        version = {"engine": "openai"} | {key: settings[key] for key in ("base_url", "model")}
        super().__init__(settings, ledger, purpose, version)
        self.sampling = {key: sampling[key] for key in ("temperature", "top_p")}
        self.stop = list(stop)

    def generate(self, chats: Sequence[Chat]) -> list[Reply]:
        """Return a reply to each conversation, in order; an unusable one has its reason in `rejected`."""
        keys = [self._digest(chat) for chat in chats]
        requests = dict(zip(keys, chats))
        todo = {key: chat for key, chat in requests.items() if key not in self.answers}
        self.ask(todo, len(requests) - len(todo), len(requests), "request")
        return [self._reply(self.answers[key]) for key in keys]

    async def complete(self, chat: Chat) -> Reply:
        """Return a reply to one conversation, while others are asked."""
        return self._reply(await self.fetch(self._digest(chat), chat))

    @property
    def playing(self) -> int:
        """The number of conversations that keep the endpoint busy while as many wait for their environment."""
        return 2 * self.settings["concurrency"]

    def _digest(self, chat: Chat) -> str:
        """Return the digest of everything that an answer depends on: the key of its ledger entry."""
        return digest([self.version, self.sampling, chat.messages, chat.seed, chat.max_tokens])

    def _bytes(self, request: Chat) -> int:
        return sum(len(message["content"].encode()) + 16 for message in request.messages) + 16

    def _most_tokens(self, request: Chat) -> int:
        return request.max_tokens

    async def _send(self, key: str, request: Chat, attempt: str, bound: float) -> Entries:
        """Send a conversation and return the ledger's entry of its answer. A refusal or a cut-off text is one too."""
        messages: Any = request.messages
        try:
            answer = await self.client.chat.completions.create(
                model=self.settings["model"],
                messages=messages,
                max_tokens=request.max_tokens,
                seed=request.seed,
                **self.sampling,
            )
        except openai.BadRequestError as error:
            if error.code not in FILTERED:
                raise
            return [(key, {"text": "", "finish": "content_filter", "attempt": attempt, "cost": 0.0, "tokens": 0})]
        except ValueError as error:  # JSON that was cut off
            raise Transient(f"not JSON ({error})") from None

        choices = getattr(answer, "choices", None) if isinstance(answer, ChatCompletion) else None
        if not choices or getattr(choices[0], "message", None) is None:
            raise Transient("no choices in the answer", getattr(answer, "usage", None))

        choice = choices[0]
        usage = answer.usage
        refusal = getattr(choice.message, "refusal", None)
        entry = {
            "text": refusal or choice.message.content or "",
            "finish": "refusal" if refusal else choice.finish_reason,
            "attempt": attempt,
            "cost": self._cost(usage) if usage else bound,
            "tokens": usage.completion_tokens if usage else request.max_tokens,
        }
        return [(key, entry)]

    def _reply(self, answer: dict[str, Any]) -> Reply:
        """Return a stored answer, cut after a stop string: what follows one is the environment's to write."""
        text = answer["text"]
        finish = answer["finish"]

        ends = [text.find(stop) + len(stop) for stop in self.stop if stop in text]
        if ends and finish in ("stop", "length"):
            return Reply(text[: min(ends)], "stop", None, answer["tokens"])

        reasons = {"stop": None, "length": "cut off at max_tokens", "refusal": f"refused: {text:.200}"}
        reason = reasons.get(finish, f"ended by {finish}")
        return Reply(text, "eos", reason or (None if text.strip() else "empty"), answer["tokens"])


class Embeddings(Client):
    """Texts in, vectors out. The ledger keeps the vector of each text, so no text is paid for twice."""

    ANSWER = "vector"

    def __init__(self, settings: dict[str, Any], ledger: Ledger, purpose: str):
        version = {"engine": "openai embeddings"} | {key: settings[key] for key in ("base_url", "model")}
        super().__init__(settings, ledger, purpose, version)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Return the vectors of texts as the endpoint gives them: [texts, width], float32."""
        keys = [self._digest(text) for text in texts]
        todo = {key: text for key, text in zip(keys, texts) if key not in self.answers}
        missing = list(todo)
        batches = [missing[start : start + TEXTS] for start in range(0, len(missing), TEXTS)]
        requests = {digest(batch): [todo[key] for key in batch] for batch in batches}

        total = len(set(keys))
        self.ask(requests, total - len(todo), total, "text")
        vectors = [np.frombuffer(base64.b64decode(self.answers[key]["vector"]), "<f4") for key in keys]

        widths = sorted({len(vector) for vector in vectors})
        if len(widths) > 1:
            raise BadInput(
                f"{self.purpose}: the model {self.settings['model']} returned vectors of {widths[0]} and of "
                f"{widths[-1]} numbers; another model may answer under this name now: remove {self.ledger.folder}"
            )
        return np.stack(vectors)

    def _digest(self, text: str) -> str:
        return digest([self.version, text])

    def _bytes(self, request: list[str]) -> int:
        return sum(len(text.encode()) + 2 for text in request)

    def _most_tokens(self, request: list[str]) -> int:
        return 0

    async def _send(self, key: str, request: list[str], attempt: str, bound: float) -> Entries:
        """Send texts and return the ledger's entry of each vector. Each tells the cost of the whole attempt."""
        try:
            answer = await self.client.embeddings.create(
                model=self.settings["model"], input=request, encoding_format="float"
            )
        except ValueError as error:  # JSON that was cut off
            raise Transient(f"not JSON ({error})") from None

        usage = getattr(answer, "usage", None)
        data = getattr(answer, "data", None) if isinstance(answer, CreateEmbeddingResponse) else None
        if not data or len(data) != len(request):
            raise Transient(f"{len(data or [])} vectors for {len(request)} texts", usage)

        entries: Entries = []
        cost = self._cost(usage) if usage else bound
        for text, item in zip(request, sorted(data, key=lambda item: item.index)):
            vector = np.asarray(item.embedding, "<f4")
            if vector.ndim != 1 or not len(vector) or not np.isfinite(vector).all():
                raise Transient("a vector that is no list of finite numbers", usage)
            stored = base64.b64encode(vector.tobytes()).decode()
            entries.append((self._digest(text), {"vector": stored, "attempt": attempt, "cost": cost}))

        return entries
