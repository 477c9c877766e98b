"""Who answers: one file per engine, each with `Engine(model, settings, sampling, stop)`.

An engine has `version` (a JSON value that its results depend on), `tokenizer`, and `generate(requests)`,
which returns one Completion per Request, in order. Tasks do not know which engine answers.
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


def load(name: str, **arguments):
    """The engine called `name` (a file of this folder), over the model in a checkpoint's folder."""
    return importlib.import_module(f"workflow_scripts.engines.{name}").Engine(**arguments)
