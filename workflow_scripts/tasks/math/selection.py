"""Select what a round of the task `math` trains on: code only where code is more accurate (AutoCode's E-step)."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.identity import normalise
from workflow_scripts.core.records import GradedAnswer, MetaEntry
from workflow_scripts.tasks import defaults
from workflow_scripts.tasks.defaults import Encode, meta_entry, training_row, with_advantages
from workflow_scripts.tasks.math.conversation import segments

PATHS = ("cot", "pot")  # chain of thought, program of thought
OTHER = {"cot": "pot", "pot": "cot"}
SPLICE = {
    "pot": "\nSorry, the above solution may be incorrect. It's better to write a program.\n",
    "cot": "\nSorry, the above solution may be incorrect. It's better to simply reason step by step.\n",
}

Chosen = tuple[str, str, dict[str, Any]]  # path, kind of row, answer


class Selection(defaults.Selection):
    """Answers on the better path of each question, right and wrong ones."""

    kept = ("path", "trigger", "prompt_text")

    def construct_meta(self, answers: Sequence[GradedAnswer], dedup: bool) -> dict[str, Any]:
        """Return the answers by prompt; `right` and `total` count them by path.

        Right answers whose code block is never closed are left out. With `dedup`, equal answers on a path count once.
        """
        meta: dict[str, Any] = {}

        for answer in answers:
            path = answer["path"]  # type: ignore[typeddict-item]  (a field that grading adds)
            is_right = answer["reward"] > 0.5
            if is_right and answer["answer"].count("```") % 2:
                continue

            empty = {"right": dict.fromkeys(PATHS, 0), "total": dict.fromkeys(PATHS, 0)}
            entry = meta.setdefault(answer["id"], meta_entry(answer) | empty)
            if dedup and any(answer["answer"] == other["answer"] for other in answers_on(entry, path)):
                continue

            entry["right"][path] += is_right
            entry["total"][path] += 1
            entry["answers"].append({name: answer[name] for name in (*defaults.KEPT_OF_ANSWERS, *self.kept)})

        return meta

    def counts(self, meta: dict[str, Any]) -> dict[str, int]:
        """Return the right and all answers of each path."""
        counts = {}
        for path in PATHS:
            counts[f"{path}_right"] = sum(entry["right"][path] for entry in meta.values())
            counts[f"{path}_total"] = sum(entry["total"][path] for entry in meta.values())
        return counts

    def select(
        self, metas: dict[str, dict[str, MetaEntry]], settings: dict[str, Any], seed: int, encode: Encode
    ) -> tuple[list[dict[str, Any]], Counter[str]]:
        """Return the training rows and what was dropped. Each question draws from its own seed.

        The switches of the config section `math` add to the auto answers on the better path: `keeptrigger` triggered
        answers, `negbetter` spliced self-corrections in place of half of the wrong answers, `all` the auto answers of
        both paths. `mixed` drops questions that were always answered right from groups; else they have advantage 1.
        """
        rows: list[dict[str, Any]] = []
        dropped: Counter[str] = Counter()
        questions = {prompt_id: entry["question"] for meta in metas.values() for prompt_id, entry in meta.items()}

        for prompt_id in sorted(questions, key=lambda prompt_id: questions[prompt_id]):
            entries = {version: meta[prompt_id] for version, meta in metas.items() if prompt_id in meta}
            accuracy = accuracies(entries)
            better = "pot" if accuracy["pot"] > accuracy["cot"] else "cot"
            if accuracy[better] == 0:
                dropped["question never answered right"] += 1
                continue

            rng = random.Random(f"{seed}.{normalise(questions[prompt_id])}")
            if "auto" in entries:
                for chosen in self._auto_answers(entries["auto"], better, rng, dropped, encode):
                    rows.append(_row(entries["auto"], "auto", *chosen))
            if "trigger" in entries and "keeptrigger" in self.switches:
                for chosen in self._triggered_answers(entries["trigger"], accuracy, rng, dropped):
                    rows.append(_row(entries["trigger"], "trigger", *chosen))

        _check_unique(rows)
        right = None if "mixed" in self.switches else 1.0
        kept, without_variance = with_advantages(rows, settings, right)
        return kept, dropped + without_variance

    @property
    def switches(self) -> list[str]:
        return self.settings.get("switches", [])

    def _auto_answers(
        self, entry: Any, better: str, rng: random.Random, dropped: Counter[str], encode: Encode
    ) -> Iterator[Chosen]:
        """Yield the answers on the better path; with `negbetter`, corrections of half of the wrong answers."""
        right = {path: [answer for answer in answers_on(entry, path) if answer["reward"] > 0.5] for path in PATHS}

        for path in PATHS:
            for answer in answers_on(entry, path):
                is_right = answer["reward"] > 0.5
                if not is_right and "negbetter" in self.switches and rng.random() < 0.5 and right[OTHER[path]]:
                    yield path, f"{path}negbetter", spliced(answer, rng.choice(right[OTHER[path]]), path, encode)
                elif path == better or "all" in self.switches:
                    yield path, "better", answer
                else:
                    dropped[f"auto answer by {path} where {better} is better"] += 1

    def _triggered_answers(
        self, entry: Any, accuracy: dict[str, float], rng: random.Random, dropped: Counter[str]
    ) -> Iterator[Chosen]:
        """Yield at most one answer per path that took the path it was asked for; thin out easy paths by half."""
        for path in PATHS:
            answers = answers_on(entry, path)
            native = [answer for answer in answers if answer["trigger"] in ("auto", path)]
            dropped["triggered answer by the other path"] += len(answers) - len(native)

            if accuracy[path] > self.settings.get("easy_success", 0.75) and rng.random() < 0.5:
                dropped["triggered answer to an easy question"] += len(native)
            elif native:
                dropped["further triggered answer"] += len(native) - 1
                yield path, "trigger", rng.choice(native)


def answers_on(entry: Any, path: str) -> list[dict[str, Any]]:
    """Return the answers of a meta entry that took a path."""
    return [answer for answer in entry["answers"] if answer["path"] == path]


def accuracies(entries: dict[str, Any]) -> dict[str, float]:
    """Return the accuracy of each path on a question, over all versions."""
    accuracy = {}
    for path in PATHS:
        right = sum(entry["right"][path] for entry in entries.values())
        total = sum(entry["total"][path] for entry in entries.values())
        accuracy[path] = right / (total + 1e-8)
    return accuracy


def spliced(wrong: dict[str, Any], right: dict[str, Any], path: str, encode: Encode) -> dict[str, Any]:
    """Return a wrong attempt, words of doubt, and a right answer by the other path. No policy sampled this text."""
    attempt = "\n".join(wrong["answer"].split("\n")[:10]) if path == "cot" else wrong["answer"]
    text = attempt.rstrip("\n") + SPLICE[OTHER[path]] + right["answer"].lstrip()
    tokens, mask = encode(segments(text))

    return right | {
        "uid": f"{wrong['uid']}.modified",
        "answer": text,
        "tokens": tokens,
        "mask": mask,
        "policy": "foreign",
        "prompt_text": wrong["prompt_text"],
        "prompt_tokens": wrong["prompt_tokens"],
    }


def _row(entry: Any, version: str, path: str, kind: str, answer: dict[str, Any]) -> dict[str, Any]:
    source = "self" if version == "auto" else "explore"
    return training_row(
        entry, answer, kind=f"{path}.{version}.{kind}", source=f"{source}.{entry['level']}.{path}", path=path
    )


def _check_unique(rows: list[dict[str, Any]]) -> None:
    counts = Counter(row["uid"] for row in rows)
    if repeated := [uid for uid, count in counts.items() if count > 1]:
        raise BadInput(f"the answer {repeated[0]} occurs {counts[repeated[0]]} times; uids of answers must be unique")
