"""Measure the outcome of a dialogue: whether and when a recommendation hit a target.

The turns of a dialogue are the messages since its prompt, by the recommender (`assistant`) and the seeker (`user`)
alternately. An interaction is an utterance of the recommender with the seeker's answer to it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from workflow_scripts.core.records import Message
from workflow_scripts.tasks.recommend.items import Catalogue, rewritten


@dataclass(frozen=True)
class Outcome:
    """The outcome of a dialogue."""

    success: bool
    interactions: int  # up to the hit; all of them if there is none
    ranks: list[int | None]  # of the targets in the last recommendation


def utterances(turns: Sequence[Message]) -> list[str]:
    """Return what the recommender said."""
    return [message["content"] for message in turns if message["role"] == "assistant"]


def ranks(catalogue: Catalogue, text: str, targets: Sequence[str]) -> list[int | None]:
    """Return the rank of each target in the ranking of an utterance, from 1; None if it is not ranked."""
    ranking = catalogue.ranking(text)
    numbers = map(catalogue.number, targets)
    return [ranking.index(number) + 1 if number in ranking else None for number in numbers]


def is_hit(catalogue: Catalogue, target_ranks: Sequence[int | None]) -> bool:
    """Return whether one of the targets is ranked high enough."""
    return any(rank is not None and rank <= catalogue.grounding.top_k for rank in target_ranks)


def outcome_of(catalogue: Catalogue, turns: Sequence[Message], targets: Sequence[str]) -> Outcome:
    """Return the outcome of a dialogue. Only utterances that recommend can hit."""
    texts = utterances(turns)
    last_ranks: list[int | None] = [None] * len(targets)

    for number, text in enumerate(texts, 1):
        if not catalogue.recommends(text):
            continue
        last_ranks = ranks(catalogue, text, targets)
        if is_hit(catalogue, last_ranks):
            return Outcome(True, number, last_ranks)

    return Outcome(False, len(texts), last_ranks)


def better_hit(
    catalogue: Catalogue, turns: Sequence[Message], targets: list[str], outcome: Outcome, length: int
) -> str | None:
    """Return the utterance that hit with its list rewritten; None if nothing hit or the list is as good as it gets."""
    if not outcome.success:
        return None

    text = utterances(turns)[outcome.interactions - 1]
    better = rewritten(catalogue, text, targets, length)
    return better if better != text else None


def rank_metrics(target_ranks: Sequence[int | None]) -> dict[str, float]:
    """Return Hit@1, 5 and 10, MRR and nDCG@10: means over the targets, each as if it were the only relevant item."""
    count = max(1, len(target_ranks))
    present = [rank for rank in target_ranks if rank]

    metrics = {f"hit_{k}": sum(rank <= k for rank in present) / count for k in (1, 5, 10)}
    metrics["mrr"] = sum(1 / rank for rank in present) / count
    metrics["ndcg_10"] = sum(1 / math.log2(rank + 1) for rank in present if rank <= 10) / count
    return metrics
