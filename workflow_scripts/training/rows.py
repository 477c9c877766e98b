"""The rows that a training stage learns from: which of them can be used, and their stored log-probs, joined by qid.

A log-prob file is taken only with a passport that says it was made for this model, data, tokenizer and arithmetic.
"""

from collections import Counter

from workflow_scripts.core.checkpoint import policy_digest
from workflow_scripts.core.cli import say
from workflow_scripts.core.manifest import file_digest, manifest_of
from workflow_scripts.core.records import BadInput, read_json, read_pickle, read_records
from workflow_scripts.core.sections import Train
from workflow_scripts.training.bins import units_of


def check_passport(path: str, data: str, checkpoint: str, settings: Train) -> dict:
    """The sampling settings in the passport of a log-prob file, if it was made for this model, data and tokenizer
    and in this training's arithmetic; else BadInput."""
    scored, passport = read_json(checkpoint), read_json(manifest_of(path)).get("passport")
    if not passport:
        raise BadInput(f"{path}: not a file of log-probs (its manifest has no passport); make one with the stage logp")
    expected = {
        "model": scored["digest"],
        "tokenizer": scored["tokenizer"],
        "data": file_digest(data),
        "dtype": settings.dtype,
    }
    for name, value in expected.items():
        if passport[name] != value:
            mend = "give logp and train one dtype" if name == "dtype" else "delete the file and run again"
            raise BadInput(
                f"{path}: these log-probs were made for another {name} ({passport[name][:16]}, training has "
                f"{value[:16]}); {mend}"
            )
    sampling = passport["sampling"]
    if settings.needs_behaviour and (sampling["top_p"] < 1 or sampling["top_k"]):
        raise BadInput(
            f"{path}: the answers were sampled with top_p {sampling['top_p']} and top_k {sampling['top_k']}, but "
            f"log-probs are of the full distribution, so the ratios of `{settings.objective}` would be biased; "
            "sample at top_p 1 and top_k 0, or train with `sft`"
        )
    return sampling


def join(rows: list[dict], name: str, files: list[str], data: str, checkpoint: str, settings: Train) -> float:
    """Give each row its stored log-probs (by qid) as `name`; the temperature that they are of."""
    samplings, logps = [check_passport(path, data, checkpoint, settings) for path in files], {}
    for path in files:
        logps |= read_pickle(path)
    for row in rows:
        if row["qid"] not in logps:
            raise BadInput(f"{', '.join(files)}: no log-probs for {row['qid']} of {data}")
        row[name] = logps[row["qid"]]
        if len(row[name]) != sum(row["mask"]):
            raise BadInput(f"log-probs of {row['qid']}: {len(row[name])} values for {sum(row['mask'])} sampled tokens")
    if any(other != samplings[0] for other in samplings):
        raise BadInput(f"{', '.join(files)}: scored for different sampling settings: {samplings}")
    return samplings[0]["temperature"]


def usable(rows: list[dict], longest: int) -> tuple[list[dict], Counter]:
    """Rows that can be trained on, and counts of those that cannot, by reason. A pair goes or stays whole."""
    good, rejects = [], Counter()
    for unit in units_of(rows):
        members = [rows[number] for number in unit]
        if max(len(row["prompt_tokens"]) + len(row["tokens"]) for row in members) > longest:
            rejects[f"longer than max_length {longest}"] += len(unit)
        elif not all(any(row["mask"]) for row in members):
            rejects["no sampled tokens"] += len(unit)
        else:
            good += members
    return good, rejects


def check_pairs(rows: list[dict], data: str) -> None:
    """Two neighbours each, the chosen one with advantage 1 and the rejected one with -1; else BadInput."""
    for unit in units_of(rows):
        signs = sorted(float(rows[number].get("advantage", 0)) for number in unit)
        if signs != [-1.0, 1.0]:
            raise BadInput(
                f"{data}: dpo learns from preference pairs, but row {rows[unit[0]]['qid']} belongs to none: its "
                f"neighbour should share its `pair`, one with advantage 1 and one with -1, found {signs}"
            )


def read_rows(args, settings: Train) -> tuple[list[dict], Counter, float]:
    """The rows to train on, with their stored log-probs; rejects by reason; the temperature of the log-probs.

    `args` are those of the stage train: data, model, logp, reference and ref_logp.
    """
    objective, start = settings.objective, policy_digest(args.model)
    rows, rejects = usable(list(read_records(args.data)), settings.max_length)
    say("rejected: " + ("; ".join(f"{n} × {reason}" for reason, n in rejects.items()) or "nothing"))
    if not rows:
        raise BadInput(f"{args.data}: no row can be trained on: {dict(rejects)}")
    wanted = {
        "--logp": (settings.needs_behaviour, args.logp),
        "--ref-logp": (settings.needs_reference, args.ref_logp),
    }
    for flag, (needed, files) in wanted.items():
        if needed and not files:
            raise BadInput(f"{flag}: the objective {objective} needs stored log-probs; score the data first")
    if objective == "dpo":
        check_pairs(rows, args.data)
    if args.ref_logp and not args.reference:
        raise BadInput("--ref-logp: say with --reference which checkpoint these log-probs are of")
    temperature = 1.0
    for row in rows:
        row["foreign"] = row["policy"] != start and settings.foreign_ratio == "one"
    if args.logp:
        temperature = join(rows, "behaviour", args.logp, args.data, args.model, settings)
    if args.ref_logp:
        other = join(rows, "reference", args.ref_logp, args.data, args.reference, settings)
        if args.logp and other != temperature:
            raise BadInput(f"--ref-logp: of logits / {other}, but --logp of logits / {temperature}; score them alike")
        temperature = other
    return rows, rejects, temperature


def say_ratios(rows: list[dict], settings: Train, start: str) -> int:
    """Whose words the rows are; the number that others wrote."""
    others = sum(row["policy"] != start for row in rows)
    if settings.needs_behaviour and others:
        ratio = "1" if settings.foreign_ratio == "one" else "proximal: against the checkpoint training starts from"
        say(f"{others} of {len(rows)} rows were not sampled by this policy: their ratio is {ratio}")
    return others
