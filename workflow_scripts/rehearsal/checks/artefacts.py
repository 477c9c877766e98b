"""Check the rehearsal's own artefacts: failed stages, masks, ends of answers, grades, groups and training."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workflow_scripts.core.files import read_json
from workflow_scripts.core.pickles import read_pickle
from workflow_scripts.core.records import read_records
from workflow_scripts.core.running.manifest import manifest_of
from workflow_scripts.rehearsal.findings import Finding, by_share, percent
from workflow_scripts.rehearsal.rehearsed import Rehearsed

Record = dict[str, Any]


def check(rehearsed: Rehearsed) -> Iterator[Finding]:
    """Yield what the artefacts of the rehearsal show."""
    run = rehearsed.run
    yield from failed_stages(Path(run.folder) / "logs", rehearsed.since)

    if Path(run.cold_start_data).exists():
        yield from masks("cold_start", read_pickle(run.cold_start_data))

    for n in range(rehearsed.cfg.rounds + 1):
        yield from answers(rehearsed, n)
    if Path(run.data(1)).exists():
        yield from selected(rehearsed, read_pickle(run.data(1)))
    for name, checkpoint in (("cold_start", run.checkpoint(0)), ("train", run.checkpoint(1))):
        yield from trained(name, Path(checkpoint))


# ---------------------------------------------------------------- stages


def failed_stages(logs: Path, since: float) -> Iterator[Finding]:
    """Yield the stages that failed since the rehearsal began, with the last words of their logs."""
    for log in sorted(logs.rglob("*.log")):
        if log.stat().st_mtime < since or log.stem == "rehearse":
            continue
        if words := last_words(log.read_text(errors="replace")):
            yield Finding(
                "fail", str(log.relative_to(logs).with_suffix("")), f"the stage fails: {words}", f"See {log}."
            )


def last_words(log: str) -> str | None:
    """Return the error with which a stage ended, or None if it did not end with one."""
    errors = re.findall(r"^error: (.*?)(?=\nexit status|\Z)", log, re.MULTILINE | re.DOTALL)
    if errors:
        return errors[-1].strip()[:600]
    if "Traceback (most recent call last)" in log:
        return log.strip().splitlines()[-1][:600]
    return None


# ---------------------------------------------------------------- rows


def masks(place: str, rows: list[Record]) -> Iterator[Finding]:
    """Yield which share of the tokens is trained on."""
    trained = sum(sum(row["mask"]) for row in rows)
    total = sum(len(row["prompt_tokens"]) + len(row["tokens"]) for row in rows)
    empty = sum(not any(row["mask"]) for row in rows)

    if empty:
        text = f"{percent(empty, len(rows))} rows have no token to train on."
        yield Finding(by_share(empty / len(rows)), place, text)
    yield Finding("know", place, f"{len(rows)} rows, {percent(trained, total)} tokens are trained on.")


def answers(rehearsed: Rehearsed, n: int) -> Iterator[Finding]:
    """Yield what is odd about the answers of a round, and of the evaluation of its checkpoint."""
    run = rehearsed.run
    groups = {"generate.eval": ("eval", run.eval_graded(n))}
    if n and not rehearsed.cfg.data.source:
        for version in run.versions(n):
            groups[f"generate.{version}"] = ("train", run.graded(n, version))

    for place, (split, files) in groups.items():
        records = [record for file in files if Path(file).exists() for record in read_records(file)]
        if records:
            yield from beyond_window(place, records, rehearsed.window)
            yield from ends(place, records)
            yield from grades(rehearsed, place, split, records)


def beyond_window(place: str, records: list[Record], window: int) -> Iterator[Finding]:
    """Yield how many answers are longer than the model's context allows."""
    long = [record for record in records if len(record["prompt_tokens"]) + len(record["tokens"]) > window]
    if long:
        longest = max(len(record["prompt_tokens"]) + len(record["tokens"]) for record in long)
        text = f"{percent(len(long), len(records))} conversations grow to {longest:,} tokens; the context has {window}."
        advice = "No engine may let a conversation grow beyond the context: vLLM refuses it, and its shard fails."
        yield Finding("fail", place, text, advice)


def ends(place: str, records: list[Record]) -> Iterator[Finding]:
    """Yield how answers end. Scripted answers end by themselves, unless the model's config has another end."""
    counts = Counter(record["finish"] for record in records)
    if counts["eos"] == 0 and counts["length"]:
        text = f"no answer ended by itself: {dict(counts)}."
        yield Finding("fail", place, text, "The EOS with which answers end is no end of generation.")
    else:
        yield Finding("know", place, f"answers ended by {', '.join(f'{n} × {end}' for end, n in counts.items())}.")


def grades(rehearsed: Rehearsed, place: str, split: str, records: list[Record]) -> Iterator[Finding]:
    """Yield whether answers are graded as the script means them, and which groups teach nothing."""
    script = Path(rehearsed.run.folder) / "rehearsal" / f"script_{split}.json"
    meant = meant_grades(script) if script.exists() else {}
    missed = 0
    right = 0

    for record in records:
        is_right = next((value for text, value in meant.get(record["id"], []) if text in flat(record["answer"])), None)
        if is_right:
            right += 1
            missed += record.get("grade", record["reward"]) <= 0  # `grade`: the task's own part of a composed reward

    if missed:
        text = f"{percent(missed, right)} answers that are right by the script are graded {0}."
        yield Finding(by_share(missed / right), place, text, "Look at the references and at the grading.")

    rewards = [record["reward"] for record in records if record["reward"] is not None] or [0.0]
    text = f"{len(records)} answers, rewards from {min(rewards):.3g} to {max(rewards):.3g}."
    yield Finding("know", place, text)


def meant_grades(script: Path) -> dict[str, list[tuple[str, bool]]]:
    """Return the first turns of each prompt's scripted answers, with whether they are right, by the prompt's id."""
    meant: dict[str, list[tuple[str, bool]]] = {}
    for entry in read_json(script):
        texts = [(flat(answer["turns"][0]), answer["is_right"]) for answer in entry["answers"]]
        meant[entry["id"]] = [(text, is_right) for text, is_right in texts if is_right is not None]
    return meant


def flat(text: str) -> str:
    """Return a text without white space, which tokenizers may change."""
    return "".join(text.split())


# ---------------------------------------------------------------- selection and training


def selected(rehearsed: Rehearsed, rows: list[Record]) -> Iterator[Finding]:
    """Yield what a round would train on."""
    yield from masks("data", rows)

    manifest = read_json(manifest_of(rehearsed.run.data(1)))
    dropped = manifest.get("dropped") or {}
    if dropped:
        text = "; ".join(f"{count} × {reason}" for reason, count in dropped.items() if count)
        yield Finding("know", "data", f"dropped: {text}.")

    foreign = sum(row["policy"] == "foreign" for row in rows)
    if foreign and rehearsed.recipe.train.needs_behaviour:
        text = f"{percent(foreign, len(rows))} rows were not sampled by the policy; their ratio is fixed."
        yield Finding("know", "data", text)


def trained(name: str, checkpoint: Path) -> Iterator[Finding]:
    """Yield what a training stage rejected, and whether its first update was on the policy that sampled."""
    if not checkpoint.exists():
        return

    manifest = read_json(checkpoint)
    rejects = manifest.get("rejects") or {}
    total = manifest.get("rows", 0) + sum(rejects.values())
    for reason, count in rejects.items():
        text = f"{percent(count, total)} rows are left out: {reason}."
        yield Finding(by_share(count / total, wasteful=0.05), name, text)

    history = checkpoint.with_name("history.json")
    first = read_json(history)[0] if history.exists() else {}
    ratio = first.get("ratio_p50")
    if ratio is not None and abs(ratio - 1) > 0.02:
        text = f"the ratio of the first update is {ratio:.3f}, but should be 1: log-probs do not match."
        yield Finding("fail", name, text)
    elif manifest.get("updates"):
        text = (
            f"{manifest['updates']} updates on {manifest['rows']} rows; the first loss is {first.get('loss', 0):.4g}."
        )
        yield Finding("know", name, text)
