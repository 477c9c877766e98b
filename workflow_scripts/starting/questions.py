"""Look into a file of questions: which tasks can read it, under which keys, and how many questions it has."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from workflow_scripts import tasks
from workflow_scripts.config.sections import Split
from workflow_scripts.config.task_section import section_of
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import write_jsonl
from workflow_scripts.core.records import Prompt
from workflow_scripts.core.running import plugins
from workflow_scripts.core.sources import is_file, records_of
from workflow_scripts.freeze_prompts import read_set, reasons

SAMPLE = 200  # records that a look into a file reads
LEAST = 20  # questions of a file that eval questions can be taken from
LEAST_EVAL, MOST_EVAL = 10, 200  # eval questions that are taken from a file
EVAL_SPLITS = ("test", "validation")  # of a data set that has several splits
# Names of columns, from the most to the least certain.
QUESTIONS = ("question", "problem", "prompt", "instruction", "query", "input", "q", "text")
ANSWERS = ("answer", "reference", "solution", "gold", "target", "label", "result", "output", "response", "a")

Record = dict[str, Any]


@dataclass(frozen=True)
class Look:
    """What a task makes of the first records of a source."""

    task: str
    source: Split  # with the keys of question and answer
    prompts: list[Prompt]
    rejects: list[Record]

    @property
    def share(self) -> float:
        """The share of the records that the task can use."""
        return len(self.prompts) / max(1, len(self.prompts) + len(self.rejects))

    @property
    def summary(self) -> str:
        """How many of the records can be used, and why the others cannot."""
        count = len(self.prompts) + len(self.rejects)
        note = f" ({reasons(self.rejects)})" if self.rejects else ""
        return f"{len(self.prompts)} of the first {count} records can be used{note}"


def starting_tasks() -> list[str]:
    """Return the tasks whose config can start from a file of questions alone."""
    return [task for task in plugins.names("tasks") if section_of(task).starting is not None]


def first_record(source: Split) -> Record:
    """Return the first record of a source. Raise BadInput if it has none, or cannot be read."""
    record = next(iter(records_of(source.model_dump())), None)
    if record is None:
        raise BadInput(f"{source.file}: there are no records")
    return record


def looks_of(source: Split, task_names: list[str], settings: Mapping[str, Any] | None = None) -> list[Look]:
    """Return the looks of all tasks that can use at least one of the first records, the best one first.

    Raise BadInput with the reason of each task if none can.
    """
    record = first_record(source)
    looks, faults = [], []

    for task in task_names:
        try:
            looks.append(look(task, source, record, settings or {}))
        except BadInput as error:
            faults.append(f"  {task}: {str(error).removeprefix('prompts.train: ')}")

    if not looks:
        shown = [f"  {key}: {value!r:.70}" for key, value in record.items()]
        lines = [f"{source.file}: no question can be read from it.", *faults, "Its first record is", *shown]
        raise BadInput(
            "\n".join(lines) + "\nName the columns of question and reference with --question-key and --answer-key. "
            "docs/guides/own-questions.md lists what each task can read."
        )
    return sorted(looks, key=lambda each: -each.share)


def look(task: str, source: Split, record: Record, settings: Mapping[str, Any]) -> Look:
    """Return what a task makes of the first records. Raise BadInput if it can use none of them.

    If the task knows none of the columns, those whose names fit best count as question and answer.
    """
    try:
        return _look(task, source, settings)
    except BadInput:
        proposed = with_proposed_keys(source, record)
        if proposed == source:
            raise
    return _look(task, proposed, settings)


def _look(task: str, source: Split, settings: Mapping[str, Any]) -> Look:
    prompts_part = tasks.load(task, "Prompts", dict(settings))
    grading = tasks.load(task, "Grading", dict(settings))
    sample = source.model_copy(update={"limit": min(source.limit or SAMPLE, SAMPLE)})
    try:
        prompts, rejects = read_set(prompts_part, sample, "train", "", 0, set(), grading)
    finally:
        grading.close()
    return Look(task, source, prompts, rejects)


def with_proposed_keys(source: Split, record: Record) -> Split:
    """Return a source with the keys that fit best by their names, in place of default keys that the record lacks."""
    keys = {"question_key": QUESTIONS, "answer_key": ANSWERS}
    proposed = {}

    for name, words in keys.items():
        key = getattr(source, name)
        is_default = key == Split.model_fields[name].default
        if is_default and key not in record:
            columns = [column for column in record if column not in proposed.values()]
            if (column := _fitting(columns, words)) is not None:
                proposed[name] = column

    return source.model_copy(update=proposed)


def with_keys_that_exist(source: Split) -> Split:
    """Return a source with default keys in place of those that its first record lacks."""
    record = first_record(source)
    names = ("question_key", "answer_key")
    missing = {name: Split.model_fields[name].default for name in names if getattr(source, name) not in record}
    return source.model_copy(update=missing)


def _fitting(columns: list[str], words: tuple[str, ...]) -> str | None:
    """Return the column that one of the words names: as a whole, else as a part, such as final_answer."""
    for word in words:
        for column in columns:
            if column.lower() == word:
                return column

    for word in words:
        for column in columns:
            if len(word) > 1 and word in column.lower():
                return column

    return None


# ---------------------------------------------------------------- eval questions


def count(source: Split) -> int:
    """Return how many records a source has."""
    return sum(1 for _ in islice(records_of(source.model_dump()), source.limit))


def eval_split(source: Split) -> Split:
    """Return the eval split of a data set with several splits. Raise BadInput if it has none of the usual names."""
    for split in EVAL_SPLITS:
        candidate = source.model_copy(update={"split": split})
        if split == source.split:
            continue
        try:
            first_record(candidate)
        except BadInput:
            continue
        return candidate

    raise BadInput(
        f"{source.file}: it has no split {' or '.join(EVAL_SPLITS)}; name the eval questions with --eval-file or "
        "--eval-split"
    )


def divide(source: Split, total: int, files: dict[str, Path]) -> tuple[Split, Split]:
    """Divide the records of a file into the files of the splits train and eval. Return their sources.

    A tenth of the records, 10 to 200, becomes the eval questions. They are drawn at random, the same ones each time.
    """
    file = Path(str(source.file))
    if total < LEAST:
        raise BadInput(f"{file}: {total} questions are too few to take eval questions from; give them as --eval-file")

    number = min(MOST_EVAL, max(LEAST_EVAL, total // 10))
    chosen = set(random.Random(0).sample(range(total), number))
    sources = []

    for split, path in files.items():
        records = enumerate(islice(records_of(source.model_dump()), source.limit))
        kept = (record for place, record in records if (place in chosen) == (split == "eval"))
        write_jsonl(path, kept)
        sources.append(source.model_copy(update={"file": str(path), "limit": None}))

    return sources[0], sources[1]


def can_be_divided(source: Split) -> bool:
    """Return whether a source is one file, whose records have no splits."""
    return is_file(str(source.file))
