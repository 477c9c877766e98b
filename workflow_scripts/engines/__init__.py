"""Engines: what answers a prompt, one file each. A new engine is a new file here.

An engine's file holds a class `Engine` and, as literal constants at its top level,

    ENVIRONMENT    the file in envs/ with its own Python environment, if it needs one ("vllm" for envs/vllm.yaml)
    PACKAGES       the packages that it imports, which are looked for before the first job starts
    GPU_DISTRIBUTION  the name of a distribution that runs on GPUs only, where there is one for CPUs too
    REMOTE         True if it calls an endpoint: it needs no GPU and returns text instead of tokens
    TAKES          the keys of a version's sampling that not all engines have: repetition_penalty, structured
    STAYS          the keys of `generate` that it is loaded with, if it may stay on a node between jobs
                   (`generate.keep_engine`); then it has `sample_by`, `usage` and `fault` (see vllm.py)
    SPLITS_MODEL   True if one replica can be split over several GPUs (`generate.tensor_parallel`)

Engines of the policy are constructed as `Engine(model, settings, sampling, stop)`. They have `version` (a JSON value
that results depend on), `tokenizer` and `window` (tokens of the model's context). They answer a Request by a
Completion, in one of two ways:

- in batches: `generate(requests)` returns the completions in order;
- continuously: `await complete(request)` returns one completion, while others are computed. All calls happen within
  `async with engine.running()`. `playing` is the number of conversations that keep the engine full.

A remote engine answers a Chat by a Reply instead, without token ids or log-probs of the policy.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from workflow_scripts.core.records import Message
from workflow_scripts.core.running import plugins

UNLIMITED = 2**31  # the window of a model whose config has none


@dataclass
class Request:
    """A conversation so far, for an engine that continues tokens."""

    tokens: list[int]  # the whole context: the prompt and all turns so far
    seed: int  # equal seeds and contexts give equal answers
    max_tokens: int
    uid: str = ""  # of the conversation, which gives it its place in a batch


@dataclass
class Completion:
    """The continuation of a Request."""

    tokens: list[int]  # as sampled, the end-of-sequence token included
    finish: str  # "eos", "stop" (a stop string was written) or "length"
    logps: list[float] = field(default_factory=list)  # of the sampled tokens, under logits / temperature


@dataclass
class Chat:
    """A conversation so far, for a remote engine."""

    messages: list[Message]
    seed: int
    max_tokens: int
    uid: str = ""  # of the conversation, which gives it its place in a batch


@dataclass
class Reply:
    """The answer to a Chat."""

    text: str
    finish: str  # "eos", or "stop" (a stop string was written; the text ends with it)
    rejected: str | None  # why the text must not be used: refused, empty, cut off, filtered
    tokens: int  # that were billed as output


class TokenEngine(Protocol):
    """An engine of the policy, which answers by `generate` or by `complete`."""

    version: dict[str, Any]
    tokenizer: Any
    window: int  # tokens of the longest context that the model reads


class TextEngine(Protocol):
    """An engine that speaks text: a remote endpoint, or a script that plays a part."""

    version: dict[str, Any]

    def generate(self, chats: Sequence[Chat]) -> list[Reply]: ...

    def close(self) -> None: ...


class Continuous(Protocol):
    """An engine that answers continuously."""

    playing: int  # conversations that keep the engine full while others wait for their environment

    def running(self) -> AbstractAsyncContextManager[None]: ...

    async def complete(self, request: Any) -> Any: ...


def load(name: str, **arguments: Any) -> Any:
    """Return the engine of this name."""
    return plugins.load("engines", name).Engine(**arguments)


def root(name: str) -> str:
    """Return the root of an engine's code, for digests."""
    return f"{plugins.module_name('engines', name)}:Engine"
