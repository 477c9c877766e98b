"""Read answers for the page of a run: those of all rounds to the same questions, and what their rewards were."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from workflow_scripts.core.records import read_records
from workflow_scripts.overview.page.facts import Row, rounds_in

MOST_CHARACTERS = 4000  # of an answer that are shown
MOST_FOR_STATISTICS = 20_000  # answers of a round that distributions are computed from
BINS = 10


def graded_shards(folder: Path, place: str) -> dict[int, list[Path]]:
    """Return the graded shards below "evaluation" or "results" by round."""
    return {number: sorted(path.rglob("*_matchlog.pkl")) for number, path in rounds_in(folder, f"{place}/r*/").items()}


# ---------------------------------------------------------------- answers side by side


def side_by_side(folder: Path, place: str, most: int) -> tuple[list[Row], int]:
    """Return questions with their answers by round, and the number of all questions.

    Args:
        folder: the run's folder.
        place: "evaluation" for the eval questions, "results" for those of the rounds.
        most: how many answers are returned at most. Questions are then taken evenly from all levels, those with
            different rewards in different rounds first.
    """
    questions = questions_of(folder, place)
    return chosen_questions(list(questions.values()), most), len(questions)


def questions_of(folder: Path, place: str) -> dict[str, Row]:
    """Return all questions by id, each with its answers by round."""
    questions: dict[str, Row] = {}
    for number, paths in graded_shards(folder, place).items():
        for record in _records(paths):
            question = questions.setdefault(record["id"], _question(record))
            question["rounds"].setdefault(number, []).append(_answer(record))
    return questions


def _records(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    for path in paths:
        yield from read_records(path)


def _question(record: dict[str, Any]) -> Row:
    reference = record.get("reference")
    return {
        "id": record["id"],
        "level": str(record.get("set") or record.get("level") or ""),
        "question": record["question"],
        "reference": reference if isinstance(reference, str) or reference is None else str(reference),
        "rounds": {},
    }


def reward_of(record: dict[str, Any]) -> float:
    """Return the reward of a graded answer; the task's own one if a part of a composed reward is undecided."""
    return float(record["grade"] if record["reward"] is None else record["reward"])


def _answer(record: dict[str, Any]) -> Row:
    """Return what the page shows of a graded answer; its keys are short because there are thousands."""
    text = record["answer"]
    cut = len(text) - MOST_CHARACTERS
    return {
        "a": text if cut <= 0 else f"{text[:MOST_CHARACTERS]}\n… and {cut:,} more characters",
        "r": round(reward_of(record), 4),
        "p": record.get("path"),
        "f": record.get("finish"),
        "n": sum(record["mask"]),
        "v": record.get("trigger"),
        "u": record["uid"],
    }


def chosen_questions(questions: list[Row], most: int) -> list[Row]:
    """Return as many questions as have `most` answers together."""
    by_level: dict[str, list[Row]] = defaultdict(list)
    for question in sorted(questions, key=lambda question: (not _changes(question), question["id"])):
        by_level[question["level"]].append(question)

    chosen: list[Row] = []
    left = most
    queues = [iter(members) for _, members in sorted(by_level.items())]
    while queues:
        for queue in list(queues):
            question = next(queue, None)
            size = sum(map(len, question["rounds"].values())) if question else 0
            if question is None or size > left:
                queues.remove(queue)
                continue
            chosen.append(question)
            left -= size

    return sorted(chosen, key=lambda question: (not _changes(question), question["level"], question["question"]))


def _changes(question: Row) -> bool:
    """Return whether the rewards of a question differ from round to round."""
    rewards = {tuple(sorted(answer["r"] for answer in answers)) for answers in question["rounds"].values()}
    return len(rewards) > 1


# ---------------------------------------------------------------- distributions


def distributions(folder: Path) -> tuple[list[Row], list[Row], list[Row]]:
    """Return the distributions of rewards, the lengths, and the ways of ending of each round's sampled answers."""
    rewards: list[Row] = []
    lengths: list[Row] = []
    ends: list[Row] = []

    for number, paths in graded_shards(folder, "results").items():
        seen = []
        for record in _records(paths):
            seen.append((reward_of(record), sum(record["mask"]), record.get("finish") or "unknown"))
            if len(seen) == MOST_FOR_STATISTICS:
                break
        if not seen:
            continue

        rewards += _binned(number, [reward for reward, _, _ in seen])
        lengths.append({"round": number} | _spread([length for _, length, _ in seen]))
        ends += _shares(number, [end for _, _, end in seen])

    return rewards, lengths, ends


def _binned(number: int, values: list[float]) -> list[Row]:
    """Return the share of each reward, or of each of ten equal ranges if there are many different rewards."""
    rounded = [round(value, 6) for value in values]
    if len(set(rounded)) <= BINS:
        labels = [f"{value:g}" for value in rounded]
        places = rounded
    else:
        low, high = min(values), max(values)
        width = (high - low) / BINS or 1.0
        places = [low + min(int((value - low) / width), BINS - 1) * width for value in values]
        labels = [f"{place:.2f} to {place + width:.2f}" for place in places]

    counts: dict[tuple[float, str], int] = defaultdict(int)
    for place, label in zip(places, labels):
        counts[place, label] += 1
    return [
        {"round": number, "reward": label, "order": place, "share": count / len(values), "answers": count}
        for (place, label), count in sorted(counts.items())
    ]


def _spread(values: list[int]) -> Row:
    ordered = sorted(values)

    def quantile(share: float) -> int:
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]

    return {"low": quantile(0.1), "middle": quantile(0.5), "high": quantile(0.9), "answers": len(ordered)}


def _shares(number: int, values: list[str]) -> list[Row]:
    return [
        {"round": number, "end": value, "share": values.count(value) / len(values), "answers": values.count(value)}
        for value in sorted(set(values))
    ]
