"""Select what a round of the task `recommend` trains on."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from workflow_scripts.core.records import GradedAnswer, MetaEntry
from workflow_scripts.tasks import defaults
from workflow_scripts.tasks.defaults import Encode
from workflow_scripts.tasks.recommend.dialogues import canonical


class Selection(defaults.Selection):
    """All rollouts, with advantages within the group of a prompt; groups without variance are dropped.

    A rewritten list is a further row with the advantage of its rollout. No policy sampled it, so it is foreign, and no
    ratio is taken.
    """

    kept = ("reranked",)

    def order(self, entry: MetaEntry) -> str:
        return canonical(entry["dialog"], entry["reference"])  # type: ignore[typeddict-item]

    def construct_meta(self, answers: Sequence[GradedAnswer], dedup: bool) -> dict[str, Any]:
        """Return the graded answers by prompt, with the dialogue that each prompt gives."""
        meta: dict[str, Any] = super().construct_meta(answers, dedup)
        for answer in answers:
            meta[answer["id"]]["dialog"] = answer["dialog"]  # type: ignore[typeddict-item]
        return meta

    def select(
        self, metas: dict[str, dict[str, MetaEntry]], settings: dict[str, Any], seed: int, encode: Encode
    ) -> tuple[list[dict[str, Any]], Counter[str]]:
        rows, dropped = super().select(metas, settings, seed, encode)

        reranked = {}
        for entry in metas["auto"].values():
            for answer in entry["answers"]:
                reranked[answer["uid"]] = answer["reranked"]
        rewritten = [rewritten_row(row, reranked[row["uid"]], encode) for row in rows if reranked[row["uid"]]]

        return rows + rewritten, dropped


def rewritten_row(row: dict[str, Any], text: str, encode: Encode) -> dict[str, Any]:
    """Return a rollout's row with another text in place of its last utterance."""
    start = len(row["mask"])
    while start and row["mask"][start - 1]:
        start -= 1
    tokens, mask = encode([(text, True)])

    return row | {
        "uid": f"{row['uid']}.reranked",
        "answer": text,
        "tokens": row["tokens"][:start] + tokens,
        "mask": row["mask"][:start] + mask,
        "policy": "foreign",
        "kind": "auto.reranked",
    }
