"""Freeze the prompts of a run: read them or make them up, validate them, and write one Parquet file per split.

Prompts without a question or a reference, references that no answer can match, repeated questions, and train questions
that are also eval questions are listed in rejects.jsonl, each with its reason.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from workflow_scripts import tasks
from workflow_scripts.config.load import settings_help
from workflow_scripts.config.sections import Prompts, Split
from workflow_scripts.core import shards
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import write_jsonl, write_parquet
from workflow_scripts.core.identity import normalise
from workflow_scripts.core.records import Prompt, conserve, read_records
from workflow_scripts.core.running.cli import (
    add_code_argument,
    add_shards_arguments,
    add_task_arguments,
    arguments,
    numbers_of_shards,
    run,
    say,
    task_files,
)
from workflow_scripts.core.running.manifest import write_manifest

SPLITS = ("eval", "train", "pool")  # eval comes first: its questions must not be in the others
COLUMNS = ("id", "question", "level")
VISIBLE = re.compile(r"[^\s\u200b-\u200f\u2060\ufeff]")  # neither white space nor a mark without width
LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")


class Validator:
    """Finds the fault of each prompt of a split, if it has one."""

    def __init__(self, task: Any, eval_keys: set[str], grading: Any = None):
        self.task = task
        self.grading = grading
        self.eval_keys = eval_keys
        self.keys: set[tuple[str | None, str]] = set()
        self.ids: set[str] = set()

    def fault(self, prompt: Any) -> str | None:
        """Return why a prompt cannot be used, or None."""
        if prompt.get("fault"):
            return prompt["fault"]

        for column in COLUMNS:
            value = prompt.get(column)
            if not isinstance(value, str) or not VISIBLE.search(value):
                return f"no {column}"

        if LONE_SURROGATE.search(json.dumps(prompt, ensure_ascii=False, default=str)):
            return "the text holds half of a character (a lone surrogate), which UTF-8 cannot store"

        if fault := self.task.fault(prompt):
            return fault

        if self.grading and (fault := reference_fault(self.grading, prompt)):
            return fault

        key = normalise(self.task.key(prompt))
        own_key = (prompt.get("set"), key)  # a question may be in two eval sets
        if own_key in self.keys:
            return "the question occurs before"
        if prompt["id"] in self.ids:
            return f"the id {prompt['id']} occurs before"
        if key in self.eval_keys:
            return "the question is also an eval question"

        self.keys.add(own_key)
        self.ids.add(prompt["id"])
        return None


class NeedsSandbox(Exception):
    """Raised if a reference cannot be checked without running a program."""


def no_sandbox(program: str) -> dict[str, Any]:
    """Refuse to run a program: prompts may be frozen on a machine that cannot isolate it."""
    raise NeedsSandbox


def reference_fault(grading: Any, prompt: Any) -> str | None:
    """Return why no answer to a prompt could be graded as right, or None. The task's own grading decides."""
    answer = grading.right_answer(prompt)
    if answer is None:
        return None

    try:
        reward = grading.grade(prompt | {"answer": answer, "uid": prompt["id"]}, no_sandbox)["reward"]
    except NeedsSandbox:
        return None
    return None if reward == 1 else f"no answer can match the reference: {answer!r:.100} is graded as wrong"


def keys_of(prompts: Iterable[Any], task: Any) -> set[str]:
    """Return the texts by which prompts count as the same."""
    return {normalise(str(task.key(prompt))) for prompt in prompts}


def check_edited(task: Any, path: str, split: str, eval_path: str, prompts: list[Any]) -> None:
    """Raise BadInput if frozen prompts were edited by hand into something that cannot be used."""
    eval_keys: set[str] = set()
    if split != "eval" and Path(eval_path).exists():
        eval_keys = keys_of(read_records(eval_path), task)

    validator = Validator(task, eval_keys)
    for number, prompt in enumerate(prompts):
        if fault := validator.fault(prompt):
            raise BadInput(f"{path}, row {number} (id {prompt.get('id')}): {fault}")


def read_set(
    task: Any, source: Split, split: str, name: str, seed: int, eval_keys: set[str], grading: Any = None
) -> tuple[list[Prompt], list[dict[str, Any]]]:
    """Return the usable prompts of a set, and the rejects with their number in the source and the reason.

    The prompts of a set with a name have it as `set`, and as their level if the source has none. Their ids begin with
    it, because two sets may have the same ids.
    """
    validator = Validator(task, eval_keys, None if source.count else grading)
    good: list[Prompt] = []
    rejects: list[dict[str, Any]] = []
    number = 0

    for number, prompt in enumerate(task.read(source.model_dump(mode="json"), split, seed), 1):
        fault = validator.fault(prompt)
        prompt.pop("fault", None)
        if name:
            level = name if prompt["level"] == split else prompt["level"]
            prompt |= {"set": name, "id": f"{name}.{prompt['id']}", "level": level}
        if fault:
            rejects.append({**prompt, "split": split, "record": number, "reason": fault})
        else:
            good.append(prompt)

    conserve(f"freeze_prompts ({split})", number, len(good), len(rejects))
    if not good:
        key = ".".join(filter(None, ("prompts", split, name)))
        origin = source.file or "the questions that the task makes up"
        state = f"none of {number} records can be used: {reasons(rejects)}" if number else "there are no records"
        raise BadInput(f"{key}: {origin}: {state}")

    return good, rejects


def freeze(task: Any, settings: Prompts, seed: int, output: Path, grading: Any = None) -> None:
    """Write a Parquet file with its manifest for each split of the config, and rejects.jsonl, into `output`.

    With the task's `grading`, references that no answer can match become rejects. Code digests leave the grading out,
    so a change to it does not freeze prompts again: delete the frozen prompts to have them checked anew.
    """
    splits: dict[str, list[Prompt]] = {}
    all_rejects: list[dict[str, Any]] = []
    eval_keys: set[str] = set()

    for split in SPLITS:
        for name, source in settings.sources(split).items():
            prompts, rejects = read_set(task, source, split, name, seed, eval_keys, grading)
            splits.setdefault(split, []).extend(prompts)
            all_rejects += rejects
            note = f" ({reasons(rejects)})" if rejects else ""
            say(f"{' '.join(filter(None, (split, name)))}: {len(prompts)} prompts, {len(rejects)} rejects{note}")
        if split == "eval":
            eval_keys = keys_of(splits.get(split, []), task)

    write_jsonl(output / "rejects.jsonl", all_rejects)
    for split, prompts in splits.items():
        path = output / f"{split}.parquet"
        write_parquet(path, prompts)
        files = [source.file for source in settings.sources(split).values()]
        local = [file for file in files if file and Path(file).is_file()]
        used = settings.model_dump(mode="json") | {"seed": seed, "task": dict(task.settings)}
        write_manifest(path, local, used, rows=len(prompts))


def reasons(rejects: list[dict[str, Any]]) -> str:
    """Return the five most frequent reasons, with their counts."""
    counts = Counter(reject["reason"] for reject in rejects)
    return "; ".join(f"{count} × {reason}" for reason, count in counts.most_common(5))


def main() -> None:
    make_prompts(__doc__)


def make_prompts(description: str | None, screen: Callable[[Any, Prompts, Path], None] | None = None) -> None:
    """Freeze the prompts that the command line names, screen them if there is a `screen`, and write their digests."""
    parser = arguments(description)
    add_task_arguments(parser)
    add_code_argument(parser)
    parser.add_argument("--settings", required=True, help=settings_help("prompts"))
    parser.add_argument("--seed", type=int, default=0, help="determines the questions that are made up")
    add_shards_arguments(parser)
    parser.add_argument("--output", required=True, help="folder for train.parquet, eval.parquet and shards/")
    args = parser.parse_args()

    output = Path(args.output)
    settings = Prompts.model_validate_json(args.settings)
    task = tasks.load(args.task, "Prompts", args.task_settings, task_files(args))
    freeze(task, settings, args.seed, output, tasks.load(args.task, "Grading"))
    if screen:
        screen(task, settings, output)

    for split in SPLITS:
        if settings.sources(split):
            shards.sync(output / "shards" / split, numbers_of_shards(args), output / f"{split}.parquet")


if __name__ == "__main__":
    run(main)
