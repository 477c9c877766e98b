"""Rows of earlier rounds that a round trains on again, with their log-probs under the policies that sampled them.

A round's log-probs are stored with a passport, so a row can be used in later rounds with an exact ratio: its
probability under the policy in training, over that under the policy that sampled it.
"""

import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json
from workflow_scripts.core.pickles import read_pickle
from workflow_scripts.core.records import read_records
from workflow_scripts.core.running.manifest import file_digest, manifest_of

Row = dict[str, Any]
ALIKE = ("dtype", "sampling")  # fields of passports in which all log-probs of a training must agree


@dataclass(frozen=True)
class EarlierRound:
    """The files of an earlier round: its data, and the log-probs of the data under the policy that it started from."""

    number: int
    data: str
    logps: tuple[str, ...]


def replayed(
    rounds: list[EarlierRound], fresh: int, settings: dict[str, Any], seed: int
) -> tuple[list[Row], dict[str, Any]]:
    """Return rows of earlier rounds, with their log-probs as `own_logps` and their round as `origin`.

    A row's uid becomes `r{round}.{uid}`, because each round numbers its answers anew. Its advantage stays.

    Args:
        rounds: the earlier rounds.
        fresh: the number of the round's own rows.
        settings: the config's section `data.replay`.
        seed: determines which rows are drawn, if there are more than the share allows.

    Returns:
        The rows, and what the manifest says of them: `rows` by round, how many were `left_out` by reason, and what all
        their log-probs have in common, `dtype` and `sampling`.

    Raises:
        BadInput: if log-probs were computed for other data, or the rounds differ in arithmetic or sampling.
    """
    rows: list[Row] = []
    left_out: Counter[str] = Counter()
    common: dict[str, Any] = {}

    for earlier in rounds:
        own, passport = _own_rows(earlier, left_out)
        if common and passport != common:
            raise BadInput(
                f"{earlier.data}: its log-probs are of {passport}, those of other rounds of {common}; rows of both "
                "cannot be trained on together, so use fewer rounds (data.replay.rounds)"
            )
        common = passport
        rows += own

    if settings["keep"] == "right":
        left_out["wrong answer"] = sum(row["advantage"] <= 0 for row in rows)
        rows = [row for row in rows if row["advantage"] > 0]

    share = settings["share"]
    most = int(fresh * share / (1 - share))
    if len(rows) > most:
        left_out["beyond data.replay.share"] = len(rows) - most
        rows = random.Random(f"{seed}.replay").sample(rows, most)

    rows = sorted(rows, key=lambda row: row["uid"])
    origins = Counter(str(row["origin"]) for row in rows)
    return rows, {"rows": dict(sorted(origins.items())), "left_out": dict(+left_out), **common}


def _own_rows(earlier: EarlierRound, left_out: Counter[str]) -> tuple[list[Row], dict[str, Any]]:
    """Return the rows that the policy of an earlier round sampled itself, with its log-probs."""
    passports = [read_json(manifest_of(path))["passport"] for path in earlier.logps]
    logps: dict[str, Any] = {}
    for path, passport in zip(earlier.logps, passports):
        if passport["data"] != file_digest(earlier.data) or passport != passports[0]:
            raise BadInput(f"{path}: these log-probs are not of {earlier.data}; delete the file and run again")
        logps |= read_pickle(path)

    rows = []
    for row in read_records(earlier.data):
        if "own_logps" in row:
            continue  # it was replayed there, and comes from its own round if that is recent enough
        if row["policy"] != passports[0]["model"]:
            left_out["answer of another policy"] += 1
            continue
        fields = {"uid": f"r{earlier.number}.{row['uid']}", "origin": earlier.number, "own_logps": logps[row["uid"]]}
        rows.append(row | fields)

    return rows, {name: passports[0][name] for name in ALIKE}
