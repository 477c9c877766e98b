"""The recommender's environment: what its utterances lead to, and what a dialogue was worth.

A dialogue's `turns` are the messages since its prompt, the recommender's (`assistant`) and the seeker's (`user`) in
turn; an interaction is one of the recommender's with what the seeker says to it.
"""

import json
import math

from workflow_scripts.core.running.ledger import Ledger
from workflow_scripts.tasks.recommend import players
from workflow_scripts.tasks.recommend.items import Catalogue, numbered, rewritten


class Environment:
    """`settings` is the config's `recommend` section. Rollouts (version auto) may end at the first recommendation and
    are checked for their format; evaluation and the teacher's dialogues go on until a target is hit."""

    def __init__(self, settings: dict, catalogue: str, version: str = "eval", ledger: Ledger | None = None):
        self.settings, self.is_rollout = settings, version == "auto"
        self.catalogue = Catalogue(catalogue, settings["grounding"])
        self.top_k = settings["grounding"]["top_k"]
        self.resamples = settings["resamples"] if self.is_rollout else 0
        self.ledger, self.seeker, self.purpose = ledger, None, f"seeker ({version})"

    def replies(self, records: list[dict], dialogues: list[list[dict]]) -> list[tuple[str | None, str | None]]:
        """What the seeker says in each dialogue, given its prompt's record and its turns: (text, reason to reject the
        dialogue). The text is None where the dialogue ends: at a hit and, with hardcore, at a rollout's first list."""
        asked, said = [], [(None, None)] * len(records)
        for i, (record, turns) in enumerate(zip(records, dialogues)):
            text, targets = turns[-1]["content"], json.loads(record["answer"])
            recommends = self.catalogue.recommends(text)
            ends = recommends and (self.hit(text, targets) or (self.settings["hardcore"] and self.is_rollout))
            if not ends:
                asked.append((i, (targets, json.loads(record["question"])["dialog"] + turns)))
        if asked:
            self.seeker = self.seeker or players.seeker(
                self.settings["seeker"], self.catalogue, self.ledger, self.purpose
            )
            for (i, _), reply in zip(asked, self.seeker.answer([one for _, one in asked])):
                said[i] = (None, f"the seeker: {reply.rejected}") if reply.rejected else (reply.text, None)
        return said

    def close(self) -> None:
        if self.seeker:
            self.seeker.close()

    def ranks(self, text: str, targets: list[str]) -> list[int | None]:
        """The rank of each target, from 1, in an utterance's ranking; None beyond its depth."""
        ranking = self.catalogue.ranking(text)
        places = map(self.catalogue.place, targets)
        return [ranking.index(place) + 1 if place in ranking else None for place in places]

    def hit(self, text: str, targets: list[str]) -> bool:
        return any(rank is not None and rank <= self.top_k for rank in self.ranks(text, targets))

    def fault(self, turns: list[dict]) -> str | None:
        """What is wrong with the form of a rollout, or None; nothing else is checked."""
        if self.settings["off_formatcheck"] or not self.is_rollout:
            return None
        lists = [text for text in spoken(turns) if self.catalogue.recommends(text)]
        if any(numbered(text) != list(range(1, self.settings["list_length"] + 1)) for text in lists):
            return f"a list that is not numbered from 1 to {self.settings['list_length']}"
        if self.settings["rec_format_check"] and not lists:
            return "nothing is recommended"
        return None

    def judge(self, turns: list[dict], targets: list[str]) -> dict:
        """Success, interactions up to it (all, where there is none), and the targets' ranks in the last recommendation;
        `reranked` is a right list as rewritten, where it differs."""
        utterances = spoken(turns)
        ranks: list[int | None] = [None] * len(targets)
        for number, text in enumerate(utterances, 1):
            if not self.catalogue.recommends(text):
                continue
            ranks = self.ranks(text, targets)
            if self.hit(text, targets):
                better = rewritten(self.catalogue, text, targets, self.settings["list_length"])
                other = better if better != text else None
                return {"success": True, "interactions": number, "ranks": ranks, "reranked": other}
        return {"success": False, "interactions": len(utterances), "ranks": ranks, "reranked": None}


def spoken(turns: list[dict]) -> list[str]:
    """The recommender's utterances."""
    return [message["content"] for message in turns if message["role"] == "assistant"]


def figures_of(ranks: list[int | None]) -> dict[str, float]:
    """Hit@1, 5 and 10, MRR and nDCG@10, each of one target's rank (its only relevant item), as means over targets."""
    count = max(1, len(ranks))
    found = [rank for rank in ranks if rank]
    return {f"hit_{k}": sum(rank <= k for rank in found) / count for k in (1, 5, 10)} | {
        "mrr": sum(1 / rank for rank in found) / count,
        "ndcg_10": sum(1 / math.log2(rank + 1) for rank in found if rank <= 10) / count,
    }
