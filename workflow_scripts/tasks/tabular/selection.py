"""What a round of the task `tabular` trains on: preferences between the answers to one prompt."""

import itertools
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.identity import digest
from workflow_scripts.core.records import MetaEntry, read_records
from workflow_scripts.tasks import defaults
from workflow_scripts.tasks.defaults import Encode, training_row
from workflow_scripts.tasks.tabular.extraction import STATUSES

Pair = tuple[dict[str, Any], dict[str, Any]]  # chosen and rejected answer
Worth = tuple[int, float, float]  # rank of the status, gain, likelihood

VALID = STATUSES["SUCCESS"]
DUPLICATE = VALID - 1  # the rank of a row that equals a training row
PAIRS = 1000  # the neutral value of tabular.pairs


class Selection(defaults.Selection):
    """Two rows for each preference: the answer with the better status, or with equal status and the higher score.

    Scores come from the file `scores`, which the stage addscore wrote.
    """

    kept = ("status",)

    def counts(self, meta: dict[str, MetaEntry]) -> dict[str, int]:
        """Return the number of answers with each status."""
        counts = Counter(answer["status"] for entry in meta.values() for answer in entry["answers"])
        return {status: counts[status] for status in STATUSES}

    def select(
        self, metas: dict[str, dict[str, MetaEntry]], settings: dict[str, Any], seed: int, encode: Encode
    ) -> tuple[list[dict[str, Any]], Counter[str]]:
        """Return two rows for each pair, chosen and rejected, and what was dropped.

        If there are more pairs than tabular.pairs, the seed determines which are drawn.
        """
        if "scores" not in self.files:
            raise BadInput("task tabular needs the scores of the answers: give --task-file scores=….score.jsonl")

        entries = with_scores(metas["auto"], self.files["scores"])
        limit = self.settings.get("pairs", PAIRS)
        dropped: Counter[str] = Counter()
        pairs: list[tuple[MetaEntry, Pair]] = []

        for entry in sorted(entries.values(), key=self.order):
            pairs += [(entry, pair) for pair in preferences(entry["answers"], dropped)]

        if len(pairs) > limit:
            dropped["pair beyond tabular.pairs"] += len(pairs) - limit
            pairs = random.Random(f"{seed}.pairs").sample(pairs, limit)

        rows = [row for entry, pair in pairs for row in pair_rows(entry, *pair)]
        return rows, +dropped


def with_scores(meta: dict[str, MetaEntry], path: str) -> dict[str, MetaEntry]:
    """Return a meta file whose answers have `score`, `likelihood` and `label`, joined by uid.

    Raise BadInput if an answer has no line in the file of scores.
    """
    scores = {
        record["uid"]: {name: record.get(name) for name in ("score", "likelihood", "label")}
        for record in read_records(path)
    }

    uids = [answer["uid"] for entry in meta.values() for answer in entry["answers"]]
    if missing := [uid for uid in uids if uid not in scores]:
        raise BadInput(
            f"{path}: {len(missing)} of {len(uids)} answers have no score, first {missing[0]}; make the scores again "
            "(rule addscore)"
        )

    scored = {}
    for prompt_id, entry in meta.items():
        answers = [answer | scores[answer["uid"]] for answer in entry["answers"]]
        scored[prompt_id] = entry | {"answers": answers}
    return scored  # type: ignore[return-value]


def worth(answer: dict[str, Any]) -> Worth:
    """Return what an answer is ranked by. A row without a score is a duplicate, which ranks below other rows.

    Gains of a quantity count in tenths of a deviation: the task model's answer is a mean, which moves a little with any
    example.
    """
    rank = STATUSES[answer["status"]]

    if rank < VALID:
        return rank, 0.0, 0.0
    if answer["score"] is None:
        return DUPLICATE, 0.0, 0.0

    is_quantity = answer["label"] is None
    return rank, round(answer["score"], 1 if is_quantity else 9), answer["likelihood"]


def preferences(answers: Sequence[dict[str, Any]], dropped: Counter[str]) -> Iterator[Pair]:
    """Yield the preferences between the answers to one prompt, if one of them is a valid row; count what is dropped.

    Rows are compared only with rows of the same label. Otherwise the label that is right more often would win, whatever
    stands beside it.
    """
    by_text = {answer["answer"]: answer for answer in answers}  # one of equal texts
    dropped["answer with the text of another"] += len(answers) - len(by_text)
    ordered = sorted(by_text.values(), key=lambda answer: answer["uid"])

    if max(worth(answer)[0] for answer in ordered) < VALID:
        dropped["prompt without a good answer"] += 1
        return

    for one, other in itertools.combinations(ordered, 2):
        have_scores = None not in (one["score"], other["score"])
        chosen, rejected = sorted((one, other), key=worth, reverse=True)

        if worth(one) == worth(other):
            dropped["pair of equal worth"] += 1
        elif have_scores and one["label"] != other["label"]:
            dropped["pair of different labels"] += 1
        elif worth(chosen)[0] == DUPLICATE:
            dropped["pair that a duplicate of a training row would win"] += 1
        else:
            yield chosen, rejected


def pair_rows(entry: MetaEntry, chosen: dict[str, Any], rejected: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the two training rows of a preference, with advantage 1 and -1. `source` is the uid of the answer."""
    pair = digest([chosen["uid"], rejected["uid"]])
    is_by_status = worth(chosen)[0] > worth(rejected)[0]

    for side, answer, advantage in (("chosen", chosen, 1.0), ("rejected", rejected, -1.0)):
        yield training_row(
            entry,
            answer | {"uid": f"{pair}.{side}"},
            kind="status" if is_by_status else "score",
            source=answer["uid"],
            pair=pair,
            advantage=advantage,
            status=answer["status"],
            score=answer["score"],
        )
