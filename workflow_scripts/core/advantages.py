"""How much better than its peers an answer was: rewards into advantages, for the data stages."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

from workflow_scripts.core.records import BadInput

# Rewards of a group differ by rounding alone below this share of the group's largest (float32 has 24 bits), or, for
# those that cancel to nearly 0, below this share of the largest of all.
ROUNDING, CANCELLED = 1e-6, 1e-9


def advantages(
    rewards: Sequence[float], groups: Sequence[str], kind: str, right: float | None = None, limit: float | None = None
) -> list[float | None]:
    """One advantage per reward, on any scale; None where the row's group has no variance and is dropped.

    raw: the reward. sign: +1 above one half, else -1, for rewards in [0, 1] alone (else BadInput). group: reward
    minus its group's mean; group_std: also divided by the group's population standard deviation. For the latter two a
    group without variance says nothing about which of its answers is better and is dropped ("dynamic sampling", DAPO,
    arXiv 2503.14476); with `right`, the reward of a right answer, a group of right answers alone keeps advantage 1
    instead, as in AutoCode (is_weighted_loss ≥ 3). `limit` cuts advantages off at ± it (AutoCode's
    is_weighted_loss 3: 2).
    """
    values = _advantages(rewards, groups, kind, right)
    if limit is None:
        return values
    return [None if value is None else min(max(value, -limit), limit) for value in values]


def _advantages(rewards, groups, kind, right) -> list[float | None]:
    if kind == "raw":
        return list(rewards)
    if kind == "sign":
        if outside := [reward for reward in rewards if not 0 <= reward <= 1]:
            raise BadInput(
                f"advantage `sign` compares rewards with one half, so they must lie in [0, 1], found {outside[0]:g}: "
                "use raw, group or group_std"
            )
        return [1.0 if reward > 0.5 else -1.0 for reward in rewards]
    members, noise = defaultdict(list), CANCELLED * max(map(abs, rewards), default=0.0)
    for reward, group in zip(rewards, groups, strict=True):
        members[group].append(reward)
    return [_centred(reward, members[group], kind, right, noise) for reward, group in zip(rewards, groups)]


def _centred(reward: float, peers: list[float], kind: str, right: float | None, noise: float) -> float | None:
    if max(peers) - min(peers) <= max(noise, ROUNDING * max(map(abs, peers))):
        return 1.0 if right is not None and math.isclose(reward, right, rel_tol=ROUNDING) else None
    mean = math.fsum(peers) / len(peers)
    spread = math.sqrt(math.fsum((peer - mean) ** 2 for peer in peers) / len(peers))
    return (reward - mean) / (spread if kind == "group_std" else 1.0)


def filtered(rows: list[dict], settings: dict, dropped: Counter) -> list[dict]:
    """`data_filter: posonly` keeps rows with a reward above `threshold`, once advantages compare them with the rest."""
    if settings["data_filter"] == "none":
        return rows
    kept = [row for row in rows if row["reward"] > settings["threshold"]]
    dropped[f"reward of {settings['threshold']} or less"] += len(rows) - len(kept)
    return kept
