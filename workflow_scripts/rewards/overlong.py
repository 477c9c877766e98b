"""The soft overlong punishment of DAPO (arXiv 2503.14476, equation 13): from 0 down to -1 near the limit of tokens.

An answer of at most `limit - buffer` tokens gets 0. From there the value falls linearly, to -1 at `limit` tokens.
"""

from collections.abc import Sequence
from typing import Any

from workflow_scripts.core.errors import BadInput
from workflow_scripts.rewards import Reward
from workflow_scripts.rewards.length import sampled_tokens

OPTIONS = {"limit": 1024, "buffer": 256}


def make(model: str | None = None, options: dict[str, Any] = OPTIONS) -> Reward:
    limit = options["limit"]
    buffer = options["buffer"]
    if not 0 < buffer <= limit:
        raise BadInput(f"reward overlong: options.buffer should be from 1 to limit {limit}, found {buffer}")

    def overlong(answer: str, references: Sequence[str], record: dict[str, Any]) -> float:
        excess = sampled_tokens(record) - (limit - buffer)
        return -min(1.0, max(0.0, excess / buffer))

    return overlong
