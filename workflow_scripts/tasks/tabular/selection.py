"""Select what a round of the task `tabular` trains on: preferences between the answers to one prompt."""

import itertools
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json
from workflow_scripts.core.identity import digest
from workflow_scripts.core.records import MetaEntry, read_records
from workflow_scripts.core.running.cli import say
from workflow_scripts.tasks import defaults
from workflow_scripts.tasks.defaults import Encode, training_row
from workflow_scripts.tasks.tabular.extraction import STATUSES

Pair = tuple[dict[str, Any], dict[str, Any]]  # chosen and rejected answer
OfPrompt = tuple[MetaEntry, Pair]
Worth = tuple[int, float, float]  # rank of the status, gain, likelihood

VALID = STATUSES["SUCCESS"]
DUPLICATE = VALID - 1  # the rank of a row that equals a training row
PAIRS = 1000  # the neutral value of tabular.pairs


class Selection(defaults.Selection):
    """Two rows for each preference: the answer with the better status, or with equal status and the higher score.

    Files: `scores`, which the stage addscore wrote; `prompts`, those of the anchors, with the shares of labels;
    `signal_0` and `signal_1`, which the stage evaluate_task wrote. With several tables there is one of each for every
    table, such as `scores.NAME`. Without signals all scores count, and without prompts labels may have any shares.
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

        The labels of the chosen rows have the shares that they have among real rows. The seed determines which pairs
        are drawn.
        """
        scores = per_table(self.files, "scores")
        if not scores:
            raise BadInput("task tabular needs the scores of the answers: give --task-file scores=….score.jsonl")

        entries = with_scores(metas["auto"], list(scores.values()))
        ordered = sorted(entries.values(), key=self.order)
        prompts = per_table(self.files, "prompts")
        dropped: Counter[str] = Counter()
        rows = []

        for table in scores:
            own = [entry for entry in ordered if table in ("", entry["level"])]
            pairs = self._pairs(own, self._has_signal(table), dropped)
            shares = read_json(prompts[table])["shares"] if table in prompts else {}
            for entry, pair in self._drawn(pairs, shares, seed, dropped):
                rows += pair_rows(entry, *pair)

        return rows, +dropped

    def _has_signal(self, table: str) -> bool:
        """Return whether the task models of a table tell labels apart well enough for their scores to count."""
        least = self.settings.get("min_signal", 0)
        files = [self.files[name] for name in self.files if name in _signal_names(table)]
        if not files or not least:
            return True

        signals = [read_json(path)["signal"] for path in files]
        mean = sum(signals) / len(signals)
        if mean < least:
            say(
                f"{table or 'the table'}: the task models' signal on held-out real rows is {mean:.2f}, below "
                f"tabular.min_signal {least}: rows are preferred by their status only, not by their scores"
            )
        return mean >= least

    def _pairs(self, entries: Sequence[MetaEntry], has_signal: bool, dropped: Counter[str]) -> list[OfPrompt]:
        """Return the preferences between the answers to each prompt. Without a signal, scores decide nothing."""
        pairs: list[OfPrompt] = []

        for entry in entries:
            for chosen, rejected in preferences(entry["answers"], dropped):
                if has_signal or is_by_status(chosen, rejected):
                    pairs.append((entry, (chosen, rejected)))
                else:
                    dropped["pair without a signal"] += 1

        return pairs

    def _drawn(
        self, pairs: list[OfPrompt], shares: dict[str, float], seed: int, dropped: Counter[str]
    ) -> list[OfPrompt]:
        """Return at most tabular.pairs of the pairs, with labels of the chosen rows by their shares."""
        limit = self.settings.get("pairs", PAIRS)
        rng = random.Random(f"{seed}.pairs")
        balanced = with_label_shares(pairs, shares, rng) if shares else pairs
        dropped["pair beyond the share of its label"] += len(pairs) - len(balanced)

        if len(balanced) > limit:
            dropped["pair beyond tabular.pairs"] += len(balanced) - limit
            balanced = rng.sample(balanced, limit)

        return balanced


def _signal_names(table: str) -> set[str]:
    """Return the names of the files with the signals of a table's task models, one for each fold."""
    suffix = f".{table}" if table else ""
    return {f"signal_{fold}{suffix}" for fold in (0, 1)}


def per_table(files: Mapping[str, str], name: str) -> dict[str, str]:
    """Return the files of a name by table: `scores.wine` is that of wine; `scores` that of the only table, ""."""
    return {key.partition(".")[2]: path for key, path in files.items() if key.partition(".")[0] == name}


def with_label_shares(pairs: list[OfPrompt], shares: Mapping[str, float], rng: random.Random) -> list[OfPrompt]:
    """Return as many pairs as possible such that the labels of the chosen rows have these shares.

    Each label is preferred over other rows of its own label as often as it occurs. Otherwise a label with more pairs
    would become more frequent from round to round. A label without pairs is left out of account. Pairs whose chosen
    answer has no label all stay: neither answer is a valid row, so they teach the form of rows only.
    """
    by_label: dict[str, list[OfPrompt]] = {label: [] for label in shares}
    unlabelled: list[OfPrompt] = []
    for pair in pairs:
        label = pair[1][0]["label"]
        (unlabelled if label is None else by_label[label]).append(pair)

    present = [label for label in shares if by_label[label] and shares[label]]
    if absent := [label for label in shares if shares[label] and not by_label[label]]:
        say(f"no pair prefers a row with the label {', '.join(absent)}; its share may fall")
    if not present:
        return unlabelled

    total = min(len(by_label[label]) / shares[label] for label in present)
    kept: list[OfPrompt] = []
    for label in present:
        quota = min(len(by_label[label]), round(total * shares[label]))
        kept += rng.sample(by_label[label], quota)
    return kept + unlabelled


def with_scores(meta: dict[str, MetaEntry], paths: Sequence[str]) -> dict[str, MetaEntry]:
    """Return a meta file whose answers have `score`, `likelihood` and `label`, joined by uid.

    Raise BadInput if an answer has no line in the files of scores.
    """
    scores = {
        record["uid"]: {name: record.get(name) for name in ("score", "likelihood", "label")}
        for path in paths
        for record in read_records(path)
    }

    uids = [answer["uid"] for entry in meta.values() for answer in entry["answers"]]
    if missing := [uid for uid in uids if uid not in scores]:
        raise BadInput(
            f"{', '.join(paths)}: {len(missing)} of {len(uids)} answers have no score, first {missing[0]}; make the "
            "scores again (rule addscore)"
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


def is_by_status(chosen: dict[str, Any], rejected: dict[str, Any]) -> bool:
    """Return whether the status decides a preference, not the score."""
    return worth(chosen)[0] > worth(rejected)[0]


def pair_rows(entry: MetaEntry, chosen: dict[str, Any], rejected: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the two training rows of a preference, with advantage 1 and -1. `source` is the uid of the answer."""
    pair = digest([chosen["uid"], rejected["uid"]])

    for side, answer, advantage in (("chosen", chosen, 1.0), ("rejected", rejected, -1.0)):
        yield training_row(
            entry,
            answer | {"uid": f"{pair}.{side}"},
            kind="status" if is_by_status(chosen, rejected) else "score",
            source=answer["uid"],
            pair=pair,
            advantage=advantage,
            status=answer["status"],
            score=answer["score"],
        )
