"""The metrics of the task `recommend`."""

from collections.abc import Sequence
from typing import Any, ClassVar

from workflow_scripts.tasks import defaults
from workflow_scripts.tasks.recommend.outcomes import rank_metrics


class Evaluation(defaults.Evaluation):
    """Success, interactions, and how high the targets are ranked in the last recommendation.

    `success_by_turn` is the share of dialogues with a hit up to each turn.
    """

    metrics: ClassVar[dict[str, tuple[str, str]]] = {
        "success": ("success", ".1%"),
        "turns": ("interactions", ".2f"),
        "hit_1": ("Hit@1", ".1%"),
        "hit_5": ("Hit@5", ".1%"),
        "hit_10": ("Hit@10", ".1%"),
        "mrr": ("MRR", ".3f"),
        "ndcg_10": ("nDCG@10", ".3f"),
    }
    right: ClassVar[str | None] = "success"

    def values(self, answer: dict[str, Any]) -> dict[str, float]:
        return {
            "success": float(answer["success"]),
            "turns": answer["interactions"],
            **rank_metrics(answer["ranks"]),
        }

    def measure(self, answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
        hits = [answer["interactions"] for answer in answers if answer["success"]]
        turns = range(1, max(hits, default=0) + 1)
        by_turn = [sum(hit <= turn for hit in hits) / max(1, len(answers)) for turn in turns]
        return super().measure(answers) | {"success_by_turn": by_turn}
