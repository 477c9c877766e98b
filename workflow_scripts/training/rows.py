"""The rows that a training stage learns from: which of them can be used, and their stored log-probs, joined by uid.

A log-prob file is accepted only with a passport that says it was computed for this model, data, tokenizer and
arithmetic.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from workflow_scripts.config.sections import Train
from workflow_scripts.core.checkpoint import policy_digest
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json
from workflow_scripts.core.pickles import read_pickle
from workflow_scripts.core.records import read_records
from workflow_scripts.core.replay import ALIKE
from workflow_scripts.core.running.cli import say
from workflow_scripts.core.running.manifest import file_digest, manifest_of
from workflow_scripts.training.bins import units_of
from workflow_scripts.training.logps import arithmetic
from workflow_scripts.training.mismatch import correct

MANY = 0.05  # share of rejected rows that is worth a warning


@dataclass
class StoredLogps:
    """The log-probs of a round's data, and the checkpoint (checkpoint.json) that they were computed under."""

    files: Sequence[str]
    checkpoint: str | None


@dataclass
class TrainingRows:
    """The rows of a training stage."""

    rows: list[dict[str, Any]]
    rejects: Counter[str] = field(default_factory=Counter)  # reason → number of rows
    temperature: float = 1.0  # the log-probs are of logits / temperature
    foreign: int = 0  # rows that another policy wrote
    mismatch: dict[str, float] = field(default_factory=dict)  # how far the engine and training are apart, if compared
    stale: list[str] = field(default_factory=list)  # uids of replayed rows that were left out


def read_rows(
    data: str, settings: Train, behaviour: StoredLogps, reference: StoredLogps, answers: Sequence[str] = ()
) -> TrainingRows:
    """Read the rows to train on and give them their stored log-probs.

    Args:
        data: the round's training data (.pkl).
        behaviour: the log-probs under the checkpoint that training starts from.
        reference: the log-probs under the reference.
        answers: the round's answers, if their engine is compared with training.

    Raises:
        BadInput: if no row can be trained on, if log-probs that the objective needs are missing, or if stored
            log-probs were computed for something else.
    """
    if behaviour.checkpoint is None:
        raise BadInput("--model: name the checkpoint.json that training starts from")

    rows, rejects = usable(list(read_records(data)), settings.max_length)
    total = len(rows) + rejects.total()
    shown = [f"{count} × {reason} ({count / total:.1%} of the rows)" for reason, count in rejects.items()]
    say(f"rejected: {'; '.join(shown) or 'nothing'}")
    if rejects.total() > MANY * total:
        say(
            f"{data}: {rejects.total() / total:.1%} of the rows are not trained on, which may bias what is learnt; "
            "raise max_length, make the prompts shorter, or set data.max_length, which cuts rows before advantages are "
            "computed"
        )
    if rejects.total() > settings.max_rejected * total:
        raise BadInput(
            f"{data}: {rejects.total() / total:.1%} of the rows are rejected ({'; '.join(shown)}), but "
            f"train.max_rejected allows {settings.max_rejected:.1%}"
        )
    if not rows:
        raise BadInput(f"{data}: no row can be trained on: {dict(rejects)}")

    _check_needed("--logp", settings.needs_behaviour, behaviour, settings)
    _check_needed("--ref-logp", settings.needs_reference, reference, settings)
    if settings.unit == "pairs":
        check_pairs(rows, data)

    start = policy_digest(behaviour.checkpoint)
    for row in rows:
        row["foreign"] = row["policy"] != start and settings.foreign_ratio == "one"

    temperature = _join_both(rows, data, settings, behaviour, reference)
    rows, stale = weigh_replayed(rows, data, settings, behaviour)
    if stale:
        rejects[f"replayed and further than max_staleness {settings.max_staleness:g} from the policy"] = len(stale)
    if {"behaviour", "reference"} <= set(settings.uses("NEEDS")):
        start_kl = kl_at_start([row for row in rows if row["policy"] == start])
        for row in rows:
            row["start_kl"] = start_kl

    mismatch = correct(rows, answers, settings) if settings.compares_engine else {}
    return TrainingRows(rows, rejects, temperature, _count_foreign(rows, settings, start), mismatch, stale)


def _check_needed(option: str, is_needed: bool, logps: StoredLogps, settings: Train) -> None:
    if is_needed and not logps.files:
        raise BadInput(f"{option}: the objective {settings.objective} needs stored log-probs; score the data first")
    if logps.files and logps.checkpoint is None:
        raise BadInput("--ref-logp: name with --reference the checkpoint that these log-probs were computed under")


def usable(rows: list[dict[str, Any]], longest: int) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Return the rows that can be trained on and, by reason, how many cannot. A pair stays or goes as a whole."""
    good: list[dict[str, Any]] = []
    rejects: Counter[str] = Counter()

    for unit in units_of(rows):
        members = [rows[number] for number in unit]
        if max(len(row["prompt_tokens"]) + len(row["tokens"]) for row in members) > longest:
            rejects[f"longer than max_length {longest}"] += len(unit)
        elif not all(any(row["mask"]) for row in members):
            rejects["no sampled tokens"] += len(unit)
        else:
            good += members

    return good, rejects


def check_pairs(rows: list[dict[str, Any]], data: str) -> None:
    """Raise BadInput unless rows come in pairs of neighbours: one with advantage 1 (chosen), one with -1 (rejected)."""
    for unit in units_of(rows):
        signs = sorted(float(rows[number].get("advantage", 0)) for number in unit)
        if signs != [-1.0, 1.0]:
            raise BadInput(
                f"{data}: the objective learns from preference pairs, but row {rows[unit[0]]['uid']} is not in one: "
                f"its neighbour should share its `pair`, one with advantage 1 and one with -1, found {signs}"
            )


# ---------------------------------------------------------------- stored log-probs


def _join_both(
    rows: list[dict[str, Any]], data: str, settings: Train, behaviour: StoredLogps, reference: StoredLogps
) -> float:
    """Give each row its log-probs under both policies; return the temperature that they were computed at."""
    temperatures = {}

    for name, logps in (("behaviour", behaviour), ("reference", reference)):
        if logps.files and logps.checkpoint:
            temperatures[name] = join(rows, f"{name}_logps", logps.files, data, logps.checkpoint, settings)

    if len(set(temperatures.values())) > 1:
        raise BadInput(
            f"--ref-logp: of logits / {temperatures['reference']}, but --logp of logits / {temperatures['behaviour']}; "
            "score both at one temperature"
        )

    return next(iter(temperatures.values()), 1.0)


def join(
    rows: list[dict[str, Any]], name: str, files: Sequence[str], data: str, checkpoint: str, settings: Train
) -> float:
    """Give each row its stored log-probs under the key `name`; return the temperature that they were computed at."""
    samplings = [check_passport(path, data, checkpoint, settings) for path in files]
    if any(other != samplings[0] for other in samplings):
        raise BadInput(f"{', '.join(files)}: computed for different sampling settings: {samplings}")

    logps: dict[str, Any] = {}
    for path in files:
        logps |= read_pickle(path)

    for row in rows:
        uid = row["uid"]
        if uid not in logps:
            raise BadInput(f"{', '.join(files)}: no log-probs for {uid} of {data}")
        if len(logps[uid]) != sum(row["mask"]):
            raise BadInput(f"log-probs of {uid}: {len(logps[uid])} values for {sum(row['mask'])} sampled tokens")
        row[name] = logps[uid]

    return samplings[0]["temperature"]


def weigh_replayed(
    rows: list[dict[str, Any]], data: str, settings: Train, behaviour: StoredLogps
) -> tuple[list[dict[str, Any]], list[str]]:
    """Give rows of earlier rounds the log-probs under the policies that sampled them.

    Until then, their `behaviour_logps` are those under the checkpoint that training starts from. Return the rows
    without stale ones, and the uids of these.

    Raises:
        BadInput: if the log-probs that the rows came with are of another arithmetic or sampling.
    """
    if not any("own_logps" in row for row in rows):
        return rows, []

    expected = read_json(manifest_of(behaviour.files[0]))["passport"]
    replayed = read_json(manifest_of(data))["replayed"]
    for name in ALIKE:
        if replayed[name] != expected[name]:
            raise BadInput(
                f"{data}: the log-probs of replayed rows are of another {name} ({replayed[name]}; training has "
                f"{expected[name]}); set data.replay to null, or start a new run"
            )

    kept = []
    stale = []
    for row in rows:
        if "own_logps" not in row:
            kept.append(row)
            continue

        own = np.asarray(row["own_logps"], np.float64)
        staleness = float(np.abs(row["behaviour_logps"] - own).mean())
        if settings.max_staleness is not None and staleness > settings.max_staleness:
            stale.append(row["uid"])
            continue
        kept.append(row | {"behaviour_logps": row["own_logps"], "foreign": False, "replayed": True})

    count = sum("own_logps" in row for row in kept)
    say(f"{count} of {len(kept)} rows are replayed: their ratio is against the policy that sampled them")
    if stale:
        say(f"{len(stale)} replayed rows are left out, because the policy has moved away from them (max_staleness)")
    return kept, stale


def kl_at_start(rows: list[dict[str, Any]]) -> float:
    """Return an estimate of KL(π_start || π_ref) per answer: the mean of Σ_t log π_start/π_ref, at least 0.

    `rows` are those that π_start sampled. Without any, it is 0.
    """
    if not rows:
        say("no row was sampled by this policy: its KL to the reference is unknown and counts as 0")
        return 0.0

    differences = [np.asarray(row["behaviour_logps"], np.float64) - row["reference_logps"] for row in rows]
    return max(0.0, float(np.mean([values.sum() for values in differences])))


def check_passport(path: str, data: str, checkpoint: str, settings: Train) -> dict[str, Any]:
    """Return the sampling settings in the passport of a log-prob file.

    Raise BadInput if the file was computed for another model, data, tokenizer or arithmetic, or if ratios against its
    log-probs would be biased.
    """
    scored = read_json(checkpoint)
    passport = read_json(manifest_of(path)).get("passport")
    if not passport:
        raise BadInput(f"{path}: not a file of log-probs (its manifest has no passport); make one with the stage logp")

    expected = {
        "model": scored["digest"],
        "tokenizer": scored["tokenizer"],
        "data": file_digest(data),
        "dtype": arithmetic(settings.dtype),
    }
    for name, value in expected.items():
        if passport[name] != value:
            remedy = "give logp and train the same dtype" if name == "dtype" else "delete the file and run again"
            raise BadInput(
                f"{path}: these log-probs were computed for another {name} ({passport[name][:16]}, training has "
                f"{value[:16]}); {remedy}"
            )

    sampling = passport["sampling"]
    if settings.needs_behaviour and (sampling["top_p"] < 1 or sampling["top_k"]):
        raise BadInput(
            f"{path}: the answers were sampled with top_p {sampling['top_p']} and top_k {sampling['top_k']}, but "
            f"log-probs are of the full distribution, so the ratios of `{settings.objective}` would be biased; "
            "sample with top_p 1 and top_k 0, or train with `sft`"
        )

    return sampling


def _count_foreign(rows: list[dict[str, Any]], settings: Train, start: str) -> int:
    """Return how many rows another policy wrote, and tell how their ratio is taken."""
    count = sum(row["policy"] != start and "own_logps" not in row for row in rows)

    if settings.needs_behaviour and count:
        ratio = "1" if settings.foreign_ratio == "one" else "taken against the checkpoint that training starts from"
        say(f"{count} of {len(rows)} rows were not sampled by this policy: their ratio is {ratio}")

    return count
