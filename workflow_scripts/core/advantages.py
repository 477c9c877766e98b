"""How much better than its peers an answer was: rewards into advantages, for the data stages."""

import math
from collections import defaultdict
from collections.abc import Sequence


def advantages(rewards: Sequence[float], groups: Sequence[str], kind: str) -> list[float | None]:
    """One advantage per reward in [0, 1]; None where the row's group carries no signal and is dropped.

    raw: the reward. sign: +1 above one half, else -1. group: reward minus its group's mean; group_std: also
    divided by the group's population standard deviation. As in AutoCode (is_weighted_loss ≥ 3), a group of
    right answers alone keeps advantage 1 and a group without any is dropped; others without variance too.
    """
    if kind == "raw":
        return list(rewards)
    if kind == "sign":
        return [1.0 if reward > 0.5 else -1.0 for reward in rewards]
    members = defaultdict(list)
    for reward, group in zip(rewards, groups, strict=True):
        members[group].append(reward)
    return [_centred(reward, members[group], kind) for reward, group in zip(rewards, groups)]


def _centred(reward: float, peers: list[float], kind: str) -> float | None:
    mean = sum(peers) / len(peers)
    spread = math.sqrt(sum((peer - mean) ** 2 for peer in peers) / len(peers))
    if spread < 1e-9:
        return 1.0 if mean > 1 - 1e-9 else None
    return (reward - mean) / (spread if kind == "group_std" else 1.0)
