"""Minus the distance of the answer's length from a target, in units of the target, at least -1.

Lengths count the tokens that the policy sampled. It is the length term of L1 (arXiv 2503.04697, equation 1), scaled by
the target.
"""

from collections.abc import Sequence
from typing import Any

from workflow_scripts.core.errors import BadInput
from workflow_scripts.rewards import Reward

OPTIONS = {"target": 512}


def make(model: str | None = None, options: dict[str, Any] = OPTIONS) -> Reward:
    target = options["target"]
    if target < 1:
        raise BadInput(f"reward length: options.target should be at least 1 token, found {target}")

    def length(answer: str, references: Sequence[str], record: dict[str, Any]) -> float:
        return max(-1.0, -abs(sampled_tokens(record) - target) / target)

    return length


def sampled_tokens(record: dict[str, Any]) -> int:
    """Return how many tokens of an answer the policy sampled."""
    if "mask" not in record:
        raise BadInput(f"record {record['uid']}: has no tokens (`mask`), so its length is unknown")

    return int(sum(record["mask"]))
