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

    def measure(self, answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
        count = max(1, len(answers))
        hits = [answer["interactions"] for answer in answers if answer["success"]]
        ranked = [rank_metrics(answer["ranks"]) for answer in answers]
        turns = range(1, max(hits, default=0) + 1)

        measured: dict[str, Any] = {
            "success": len(hits) / count,
            "turns": sum(answer["interactions"] for answer in answers) / count,
            "success_by_turn": [sum(hit <= turn for hit in hits) / count for turn in turns],
            "n": len(answers),
        }
        for name in rank_metrics([]):
            measured[name] = sum(metrics[name] for metrics in ranked) / count

        return measured
