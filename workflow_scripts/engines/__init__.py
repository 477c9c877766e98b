"""Who answers: one file per engine, each with a class `Engine`. Tasks do not know which one answers.

The policy's own engines, transformers and vllm, are `Engine(model, settings, sampling, stop)` with `version` (a JSON
value that results depend on), `tokenizer`, and `generate(requests)`: one Completion per Request, in order. The openai
engine speaks text: one Reply per Chat, and no token ids or log-probs of the policy.
"""

import importlib
from dataclasses import dataclass, field


@dataclass
class Request:
    tokens: list[int]  # the whole context: prompt and all turns so far
    seed: int  # all randomness of this request; equal seeds and contexts give equal answers
    max_tokens: int


@dataclass
class Completion:
    tokens: list[int]  # as sampled, the end-of-sequence token included
    finish: str  # "eos", "stop" (a stop string was written) or "length"
    logps: list[float] = field(default_factory=list)  # of logits / temperature at full support


@dataclass
class Chat:
    messages: list[dict[str, str]]  # the whole conversation: {role, content} each
    seed: int
    max_tokens: int


@dataclass
class Reply:
    text: str
    finish: str  # "eos" or "stop" (a stop string was written; the text ends with it)
    rejected: str | None  # why the text must not be used: refused, empty, cut off, filtered
    tokens: int  # that were billed as written


def load(name: str, **arguments):
    """The engine called `name` (a file of this folder)."""
    return importlib.import_module(f"workflow_scripts.engines.{name}").Engine(**arguments)
