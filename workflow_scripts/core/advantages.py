"""Convert rewards into advantages (how much better than its peers an answer is) for the data stages."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from workflow_scripts.core.errors import BadInput

# Rewards of a group count as equal if they differ by less than this share of the group's largest reward (float32 has
# 24 bits), or, for rewards that cancel to nearly 0, of the largest reward of all.
ROUNDING = 1e-6
CANCELLED = 1e-9


def advantages(
    rewards: Sequence[float],
    groups: Sequence[str],
    kind: str,
    right: float | None = None,
    limit: float | None = None,
    epsilon: float = 0.0,
) -> list[float | None]:
    """Return one advantage per reward; None where the row's group has no variance and is dropped.

    Args:
        rewards: one number per row, on any scale.
        groups: the group of each row, usually its prompt.
        kind: `raw` keeps the reward. `sign` gives +1 above one half and -1 otherwise; rewards must lie in [0, 1].
            `group` subtracts the group's mean, and `group_std` also divides by the group's population standard
            deviation. `rloo` subtracts the mean of the group's other rewards (Ahmadian et al. 2024, arXiv 2402.14740).
            For these three, a group without variance does not say which of its answers is better, and is dropped
            ("dynamic sampling", DAPO, arXiv 2503.14476). `batch_std` subtracts the mean of all rewards and divides by
            their standard deviation (REINFORCE++, Hu et al. 2025, arXiv 2501.03262): all rows are one group.
        right: the reward of a right answer. If given, a group of right answers only keeps advantage 1 instead of
            being dropped, as in AutoCode (is_weighted_loss ≥ 3). `batch_std` does not use it.
        limit: advantages are clipped to ± this value (2 in AutoCode's is_weighted_loss 3).
        epsilon: added to the deviation that `group_std` and `batch_std` divide by (1e-4 in TRL), so that rewards that
            are nearly equal give advantages near 0.

    Raises:
        BadInput: for `sign` with rewards outside [0, 1].
    """
    values = _unclipped(rewards, groups, kind, right, epsilon)

    if limit is None:
        return values

    return [None if value is None else min(max(value, -limit), limit) for value in values]


def _unclipped(
    rewards: Sequence[float], groups: Sequence[str], kind: str, right: float | None, epsilon: float
) -> list[float | None]:
    if kind == "raw":
        return list(rewards)

    if kind == "sign":
        if outside := [reward for reward in rewards if not 0 <= reward <= 1]:
            raise BadInput(
                f"advantage `sign` compares rewards with one half, so they must lie in [0, 1], found {outside[0]:g}; "
                "use another kind, such as raw or group"
            )
        return [1.0 if reward > 0.5 else -1.0 for reward in rewards]

    if kind == "batch_std":
        groups = ["all"] * len(rewards)
        right = None

    members = defaultdict(list)
    for reward, group in zip(rewards, groups, strict=True):
        members[group].append(reward)

    noise = CANCELLED * max(map(abs, rewards), default=0.0)
    measures = {group: _measure(peers, kind, noise, epsilon) for group, peers in members.items()}
    return [_centred(reward, measures[group], right) for reward, group in zip(rewards, groups)]


def _measure(peers: list[float], kind: str, noise: float, epsilon: float) -> tuple[float, float] | None:
    """Return what a group's rewards are compared with, and what the difference is divided by.

    Return None if the group has no variance.
    """
    if max(peers) - min(peers) <= max(noise, ROUNDING * max(map(abs, peers))):
        return None

    mean = math.fsum(peers) / len(peers)
    if kind == "group":
        return mean, 1.0
    if kind == "rloo":
        return mean, (len(peers) - 1) / len(peers)  # r - (n mean - r) / (n - 1) = (r - mean) n / (n - 1)

    spread = math.sqrt(math.fsum((peer - mean) ** 2 for peer in peers) / len(peers))
    return mean, spread + epsilon


def _centred(reward: float, measure: tuple[float, float] | None, right: float | None) -> float | None:
    if measure is None:
        is_right = right is not None and math.isclose(reward, right, rel_tol=ROUNDING)
        return 1.0 if is_right else None

    mean, divisor = measure
    return (reward - mean) / divisor


def filter_rows(rows: list[dict[str, Any]], settings: dict[str, Any], dropped: Counter) -> list[dict[str, Any]]:
    """Apply `data_filter`: `posonly` keeps rows with a reward above `threshold`.

    Call it after advantages are computed, which compare the rows with the ones that it removes.
    """
    if settings["data_filter"] == "none":
        return rows

    kept = [row for row in rows if row["reward"] > settings["threshold"]]
    dropped[f"reward of {settings['threshold']} or less"] += len(rows) - len(kept)
    return kept


# ---------------------------------------------------------------- answers that were cut off


def cut_long_answers(metas: dict[str, dict[str, Any]], settings: dict[str, Any]) -> int:
    """Cut answers to `max_length` tokens, prompt included, in place; return how many. They end with finish `length`.

    Call it before rows are selected. A row that only training finds too long has already counted for the advantages
    of its group, and long answers are wrong more often than others, so its absence would teach that wrong answers are
    rare. A prompt that leaves no room for an answer is left as it is; training rejects its rows.
    """
    longest = settings["max_length"]
    if longest is None:
        return 0

    count = 0
    for meta in metas.values():
        for entry in meta.values():
            for answer in entry["answers"]:
                room = longest - len(answer["prompt_tokens"])
                if not 0 < room < len(answer["tokens"]):
                    continue
                answer |= {"tokens": answer["tokens"][:room], "mask": answer["mask"][:room], "finish": "length"}
                count += 1

    return count


def penalise_truncated(metas: dict[str, dict[str, Any]], settings: dict[str, Any]) -> int:
    """With `truncated: penalise`, limit the rewards of answers that were cut off, in place; return how many.

    Call it before rows are selected, so that the limited rewards count in selection and advantages.
    """
    if settings["truncated"] != "penalise":
        return 0

    most = settings["truncated_reward"]
    answers = [answer for meta in metas.values() for entry in meta.values() for answer in entry["answers"]]
    cut_off = [answer for answer in answers if answer["finish"] == "length"]
    for answer in cut_off:
        answer["reward"] = min(answer["reward"], most)

    return len(cut_off)


def drop_truncated(rows: list[dict[str, Any]], settings: dict[str, Any], dropped: Counter) -> list[dict[str, Any]]:
    """With `truncated: mask`, drop the rows of answers that were cut off, and the partners of such rows in pairs.

    Call it after advantages are computed, which compare the rows with the ones that it removes.
    """
    if settings["truncated"] != "mask":
        return rows

    is_cut_off = [row.get("finish") == "length" for row in rows]
    pairs = {row["pair"] for row, is_cut in zip(rows, is_cut_off) if is_cut and row.get("pair") is not None}
    kept = [row for row, is_cut in zip(rows, is_cut_off) if not is_cut and row.get("pair") not in pairs]
    dropped["answer that was cut off"] += len(rows) - len(kept)
    return kept
