"""What the end of a run shows: answers to one question over the rounds, and what to type next."""

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from workflow_scripts.core.records import read_records
from workflow_scripts.overview.page.answers import graded_shards, reward_of
from workflow_scripts.overview.page.facts import Row
from workflow_scripts.workflow import driver

SHOWN = 3  # answers


def closing(folder: Path, page: Path | None) -> Iterator[str]:
    """Yield the lines. `page` is the run's page, if it was written."""
    by_round = graded_shards(folder, "evaluation")
    numbers = sorted(number for number, paths in by_round.items() if paths)
    chosen = numbers if len(numbers) <= SHOWN else [*numbers[: SHOWN - 1], numbers[-1]]
    answers = {number: _by_uid(by_round[number]) for number in chosen}

    uid = telling_uid(answers)
    if uid:
        question = answers[chosen[0]][uid]
        yield f"{question['question']}  (reference: {question['reference']})"
        for number in chosen:
            yield from _lines(number, answers[number][uid])
        yield ""

    yield from _next(folder, numbers, page, uid)


def _by_uid(paths: list[Path]) -> dict[str, Row]:
    return {record["uid"]: record for path in paths for record in read_records(path)}


def telling_uid(answers: dict[int, dict[str, Row]]) -> str | None:
    """Return the uid that gains most reward from the first to the last round, and early; None if no uid is in all."""
    if len(answers) < 2:
        return None

    rounds = list(answers.values())
    common = set.intersection(*(set(of_round) for of_round in rounds))

    def gain(uid: str) -> tuple:
        rewards = [reward_of(of_round[uid]) for of_round in rounds]
        texts = [of_round[uid]["answer"] for of_round in rounds]
        length = sum(map(len, texts))
        return rewards[-1] - rewards[0], len(set(texts)), -length, uid

    return max(common, key=gain, default=None)


def _lines(number: int, record: Row) -> Iterator[str]:
    """Yield an answer with its verdict; its first lines only."""
    reward = reward_of(record)
    verdict = {0.0: "✗", 1.0: "✓"}.get(reward, f"reward {reward:.3g}")
    lines = [line for line in record["answer"].strip().splitlines() if line.strip()]
    shown = lines[:8] + (["…"] if len(lines) > 8 else [])
    head = f"  round {number}  {verdict}  "

    for place, line in enumerate(shown or ["(nothing)"]):
        yield (head if place == 0 else " " * len(head)) + line[:100]


def _options(folder: Path) -> str:
    """Return the options that the run was started with and that say which run it is (`--configfile`)."""
    last = driver.read(folder)
    words = iter(last.arguments if last else ())
    kept: list[str] = []

    for word in words:
        if word == "--profile":
            next(words, None)  # the commands name one themselves
        elif word.startswith("-") or kept:
            kept.append(word)
    return "".join(f" {shlex.quote(word)}" for word in kept)


def _next(folder: Path, numbers: list[int], page: Path | None, uid: str | None) -> Iterator[str]:
    """Yield what to type next."""
    further = numbers[-1] + 2 if numbers else 1
    commands = {
        f"snakemake --profile local -n round{further}_checkpoint{_options(folder)}": "what would two more rounds need?",
        "python -m workflow_scripts.status": "where is the run, and what is next?",
    }
    if uid:
        commands[f"python -m workflow_scripts.trace {uid}"] = "the life of the answer above"
    if page is None:
        commands[f"snakemake --profile local report{_options(folder)}"] = (
            "a page with curves, answers, training and cost"
        )

    if page:
        yield f"Open {page} in a browser: curves, all answers side by side, training, cost."
    yield "What to type next:"
    if "VIRTUAL_ENV" not in os.environ:
        yield "  source .venv/bin/activate"
    width = max(map(len, commands))
    for command, text in commands.items():
        yield f"  {command:<{width}}  # {text}"
    yield "Your own questions: docs/guides/own-questions.md"
