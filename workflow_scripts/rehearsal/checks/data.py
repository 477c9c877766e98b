"""Check the data: rows that cannot be used, references that no answer matches, and what a cold start teaches."""

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

from workflow_scripts import freeze_prompts, screen_prompts
from workflow_scripts.config.sections import Screening
from workflow_scripts.core import formats
from workflow_scripts.core.columns import find_columns
from workflow_scripts.core.errors import BadInput, Reject
from workflow_scripts.core.sources import records_of
from workflow_scripts.core.workers import Workers
from workflow_scripts.rehearsal.findings import Finding, by_share, percent
from workflow_scripts.rehearsal.rehearsed import ROWS, Rehearsed, sample
from workflow_scripts.screen_prompts import EQUAL_TO_EVAL, find
from workflow_scripts.tasks.defaults import RewardedGrading

FEW_DIFFERENT = 0.05  # a smaller share of different answers cannot be solutions
ENOUGH = 20  # rows to judge that by
GRADED = 200  # references that are graded against themselves


def check(rehearsed: Rehearsed) -> Iterator[Finding]:
    """Yield what is found in the recipe's files."""
    for split in freeze_prompts.SPLITS:
        if not rehearsed.sources(split):
            continue
        try:
            prompts, reasons = rehearsed.checked(split)
        except BadInput as error:
            yield Finding("fail", f"prompts.{split}", str(error))
            continue

        yield from faults_of_split(split, len(prompts), reasons)
        yield from unmatched(rehearsed, split, prompts)
        if split != "eval":
            yield from resemblances(rehearsed, split, prompts)

    yield from cold_start(rehearsed)
    yield from source(rehearsed)


# ---------------------------------------------------------------- prompts


def faults_of_split(split: str, usable: int, reasons: Counter[str]) -> Iterator[Finding]:
    """Yield how many records of a split can be used, and why others cannot."""
    total = usable + reasons.total()
    place = f"prompts.{split}"
    looked_at = f"the first {total}" if total == ROWS else str(total)
    yield Finding("know", place, f"{usable} of {looked_at} records are usable prompts.")

    for reason, count in reasons.most_common(6):
        share = count / total
        if EQUAL_TO_EVAL in reason:
            text = f"{percent(count, total)} records are eval questions as well; they are left out of training."
            grade = "fail" if share >= 0.5 else "waste"
            yield Finding(grade, place, text, "Check that the eval file holds questions that are held out.")
        else:
            yield Finding(by_share(share), place, f"{percent(count, total)} records are left out: {reason}.")


def resemblances(rehearsed: Rehearsed, split: str, prompts: list[Any]) -> Iterator[Finding]:
    """Yield whether prompts resemble eval prompts or one another, by the recipe's screening or the default one."""
    screening = rehearsed.recipe.prompts.screening or Screening(contamination="warn", duplicates="warn")
    held = rehearsed.checked("eval")[0] if rehearsed.sources("eval") else []
    texts, held_texts = (
        {prompt["id"]: str(rehearsed.reader.key(prompt)) for prompt in some} for some in (prompts, held)
    )
    place = f"prompts.{split}"

    try:
        overlaps = Counter(screen_prompts.REASONS[overlap.kind] for _, overlap in find(texts, held_texts, screening))
    except BadInput as error:
        yield Finding("know", place, f"near-duplicates were not counted: {error}.")
        return

    for reason, count in overlaps.items():
        advice = "" if rehearsed.recipe.prompts.screening else "Give prompts.screening, which can leave them out."
        text = f"{percent(count, len(prompts))} prompts resemble others: {reason}."
        # Questions that are made from templates resemble one another rightly, so this is never a failure.
        grade = "know" if by_share(count / len(prompts)) == "know" else "waste"
        yield Finding(grade, place, text, advice)


def unmatched(rehearsed: Rehearsed, split: str, prompts: list[Any]) -> Iterator[Finding]:
    """Yield whether there are references that a right answer does not match."""
    grading = rehearsed.part("Grading", "grade")
    if isinstance(grading, RewardedGrading) or "answer" not in grading.depends_on:
        return

    rehearsal = rehearsed.part("Rehearsal", "script")
    chosen = sample(prompts, GRADED)
    with Workers(isolate=rehearsed.recipe.sandbox == "on") as run:
        missed = [prompt for prompt in chosen if not matches_itself(grading, rehearsal, prompt, run)]

    if missed:
        text = (
            f"{percent(len(missed), len(chosen))} references match no answer, not even themselves, such as "
            f"{str(missed[0]['reference'])[-60:]!r} (id {missed[0]['id']})."
        )
        advice = "Every answer to these questions would count as wrong: keep only the final answer as reference."
        yield Finding(by_share(len(missed) / len(chosen)), f"prompts.{split}", text, advice)


def matches_itself(grading: Any, rehearsal: Any, prompt: Any, run: Any) -> bool:
    """Return whether the answer that the task calls right is graded better than the wrong one."""
    rewards: dict[bool, float] = {}

    for answer in rehearsal.answers(prompt):
        if answer.is_right is not None and answer.is_right not in rewards:
            record = prompt | {"uid": prompt["id"], "answer": "".join(answer.turns)}
            rewards[answer.is_right] = grading.grade(record, run)["reward"]

    return len(rewards) < 2 or rewards[True] > rewards[False]


# ---------------------------------------------------------------- the cold start, and rows that exist


def cold_start(rehearsed: Rehearsed) -> Iterator[Finding]:
    """Yield what a cold start from a file teaches."""
    settings = rehearsed.recipe.cold_start
    if not settings or not settings.file or rehearsed.is_made_here(settings.file):
        return

    try:
        pairs = list(islice(taught(rehearsed, settings), ROWS))
    except BadInput as error:
        yield Finding("fail", "cold_start.file", str(error))
        return

    yield from judge_taught(pairs)


def judge_taught(pairs: list[tuple[str, str]]) -> Iterator[Finding]:
    """Yield what is odd about (question, answer) pairs that a model is to learn."""
    if not pairs:
        yield Finding("fail", "cold_start.file", "no record can be used.")
        return

    counts = Counter(answer for _, answer in pairs)
    examples = "; ".join(f"{question[-40:]!r} → {answer[:60]!r}" for question, answer in pairs[:3])

    if len(pairs) >= ENOUGH and len(counts) / len(pairs) < FEW_DIFFERENT:
        common = ", ".join(repr(answer[:30]) for answer, _ in counts.most_common(4))
        text = f"{len(pairs)} rows have only {len(counts)} different answers ({common})."
        yield Finding("fail", "cold_start.file", text, "These are no solutions: name the key that holds them.")
    yield Finding("know", "cold_start.file", f"{len(pairs)} rows teach {len(counts)} answers, such as {examples}.")


def taught(rehearsed: Rehearsed, settings: Any) -> Iterator[tuple[str, str]]:
    """Yield (question, answer) of each usable record of the cold start's file."""
    values = settings.model_dump(mode="json")
    if formats.has_worked_answers(values):
        reader = rehearsed.part("ColdStart", "construct_sft")
        for example in reader.examples(values, rehearsed.recipe.seed):
            yield example["question"], "".join(text for text, is_sampled in example["pieces"] if is_sampled)
        return

    columns = None
    for record in records_of(values):
        columns = columns or find_columns({"file": settings.file, "format": "sft"}, set(record))
        try:
            messages, start = formats.sft_conversation(record, columns, rehearsed.recipe.template)
        except Reject:
            continue
        yield messages[start - 1]["content"], "".join(message["content"] for message in messages[start:])


def source(rehearsed: Rehearsed) -> Iterator[Finding]:
    """Yield which rows of an existing file cannot be used."""
    settings = rehearsed.recipe.data.source
    if not settings or not rehearsed.model_folder:
        return

    conversation = rehearsed.part("Conversation", "import_data")
    options = settings.model_dump(mode="json") | {"limit": min(settings.limit or 2000, 2000)}
    try:
        rows, rejects = formats.read_rows(
            options, rehearsed.tokenizer, rehearsed.recipe.full_template, conversation.segments
        )
    except BadInput as error:
        yield Finding("fail", "data.source", str(error))
        return

    total = len({row.get("pair", row["uid"]) for row in rows}) + len(rejects)
    yield Finding("know", "data.source", f"{total - len(rejects)} of the first {total} rows are usable.")
    for reason, count in Counter(reject["reason"] for reject in rejects).most_common(5):
        yield Finding(by_share(count / total), "data.source", f"{percent(count, total)} rows are left out: {reason}.")

    longest = rehearsed.recipe.train.max_length
    long = sum(len(row["prompt_tokens"]) + len(row["tokens"]) > longest for row in rows)
    if long:
        text = f"{percent(long, len(rows))} rows are longer than train.max_length {longest} and are left out."
        yield Finding(by_share(long / len(rows)), "train.max_length", text)
