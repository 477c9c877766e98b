"""Follow a record through a run: who was asked, what was answered, what it was worth, and what was learnt from it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from workflow_scripts import tasks
from workflow_scripts.config.sections import Train
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json
from workflow_scripts.core.identity import shard_of
from workflow_scripts.core.pickles import read_pickle
from workflow_scripts.core.records import read_records
from workflow_scripts.overview.page.facts import rounds_in

# Fields of a graded answer that grading does not add; all others are its verdict.
NO_VERDICT = frozenset(
    "uid id question reference level messages set trigger prompt_text answer prompt_tokens tokens mask finish "
    "sampled_logps policy turns fault draws reward".split()
)
RATIOS = ("ratio", "ratio_p05", "ratio_p50", "ratio_p95", "clipped", "kl_behaviour", "advantage", "loss")


@dataclass
class Training:
    """What a round trained on a row."""

    kind: str
    advantage: float | None
    updates: list[int]  # those whose rows contain it, from 1
    logged: dict[int, dict[str, float]]  # the metrics of these updates, which are of all their rows together
    logp: float | None  # mean log-prob of its sampled tokens under the policy that answered


@dataclass
class Answer:
    """An answer of a run, and what became of it."""

    round: int
    place: str  # auto, trigger or evaluation
    record: dict[str, Any]
    file: str
    training: Training | None = None
    left_out: dict[str, int] = field(default_factory=dict)  # why answers to its question are no rows: {reason: count}

    @property
    def verdict(self) -> dict[str, Any]:
        """What grading added, apart from the reward."""
        return {name: value for name, value in self.record.items() if name not in NO_VERDICT}


class Lineage:
    """The records of a run, looked up by question or by answer."""

    def __init__(self, folder: Path, task: str):
        self.folder = folder
        self.task = task

    # ------------------------------------------------------------ questions

    @cached_property
    def prompts(self) -> dict[str, dict[str, Any]]:
        """The frozen prompts of all splits by id."""
        prompts = {}
        for path in sorted(self.folder.glob("prompts/*.parquet")):
            for prompt in read_records(path):
                prompts[prompt["id"]] = prompt | {"split": path.stem}
        return prompts

    def question(self, text: str) -> dict[str, Any]:
        """Return the prompt with this id, this question, or this part of a question. Raise BadInput if none fits."""
        if text in self.prompts:
            return self.prompts[text]

        words = text.strip().lower()
        fitting = [prompt for prompt in self.prompts.values() if words in prompt["question"].lower()]
        exact = [prompt for prompt in fitting if prompt["question"].strip().lower() == words]
        if len(exact or fitting) == 1:
            return (exact or fitting)[0]
        if not fitting:
            raise BadInput(
                f"{text!r}: {self.folder} has no answer with this uid, no question with this id or text, and it is no "
                "update such as round2:40"
            )

        shown = "\n".join(f"  {prompt['id']}  {prompt['question']}" for prompt in fitting[:10])
        more = f"\n  and {len(fitting) - 10} more" if len(fitting) > 10 else ""
        raise BadInput(f"{text!r} is part of {len(fitting)} questions; give more of the text, or an id:\n{shown}{more}")

    # ------------------------------------------------------------ answers

    def answers(self, prompt_id: str, uid: str | None = None) -> list[Answer]:
        """Return the answers to a question in all rounds, or those with one uid, with what became of them."""
        answers = [answer for answer in self._graded(prompt_id) if uid in (None, answer.record["uid"])]

        for answer in answers:
            if answer.place != "evaluation":
                self._follow(answer)
        return answers

    def _graded(self, prompt_id: str) -> Iterator[Answer]:
        for place in ("results", "evaluation"):
            for number, folder in rounds_in(self.folder, f"{place}/r*/").items():
                for path in sorted(folder.rglob("*_matchlog.pkl")):
                    count, rank = map(int, path.stem.removesuffix("_matchlog").split("_"))
                    if shard_of(prompt_id, count) != rank:
                        continue
                    version = place if place == "evaluation" else path.parent.name
                    for record in read_records(path):
                        if record["id"] == prompt_id:
                            yield Answer(number, version, record, str(path))

    # ------------------------------------------------------------ what was learnt

    def _follow(self, answer: Answer) -> None:
        if self.rows(answer.round) is None:
            return

        row = self.row_of(answer)
        if row:
            answer.training = self.training(answer.round, row)
        else:
            answer.left_out = self.left_out(answer.round, answer.record["id"])

    def row_of(self, answer: Answer) -> dict[str, Any] | None:
        """Return the training row of an answer: the one with its uid, or the row of a pair that has its tokens."""
        rows = self.rows(answer.round) or {}
        record = answer.record
        if record["uid"] in rows:
            return rows[record["uid"]]

        for row in rows.values():
            is_of_pair = row.get("pair") is not None and row.get("prompt_id") == record["id"]
            if is_of_pair and row["tokens"] == record["tokens"]:
                return row
        return rows.get(f"{record['uid']}.modified")  # a wrong answer with a correction after it

    def data_file(self, number: int) -> Path | None:
        """Return the training data of a round; None if there is none."""
        paths = [path for path in self.folder.glob(f"data/offline_*_r{number}_*.pkl") if path.is_file()]
        return paths[0] if paths else None

    def rows(self, number: int) -> dict[str, dict[str, Any]] | None:
        """Return the training rows of a round by uid; None if they are not made yet."""
        if number not in self._rows:
            path = self.data_file(number)
            self._rows[number] = {row["uid"]: row for row in read_records(path)} if path else None
        return self._rows[number]

    @cached_property
    def _rows(self) -> dict[int, dict[str, dict[str, Any]] | None]:
        return {}

    def training(self, number: int, row: dict[str, Any]) -> Training:
        """Return what a round trained on a row."""
        updates = self.updates(number).get(row["uid"], [])
        history = {entry["step"]: entry for entry in self.history(number)}
        logged = {}
        for update in updates:
            later = min((step for step in history if step >= update), default=None)
            if later is not None:
                logged[update] = {name: history[later][name] for name in RATIOS if name in history[later]}
        return Training(row.get("kind", ""), row.get("advantage"), updates, logged, self._logp(number, row["uid"]))

    def updates(self, number: int) -> dict[str, list[int]]:
        """Return the updates of a round by the uid of the rows that they contain; {} if the round is not trained."""
        if number not in self._updates:
            self._updates[number] = self._plan(number)
        return self._updates[number]

    @cached_property
    def _updates(self) -> dict[int, dict[str, list[int]]]:
        return {}

    def _plan(self, number: int) -> dict[str, list[int]]:
        """Return the updates by uid. They follow from the rows, the seed and the batch size, as in the training."""
        checkpoint = self.folder / f"checkpoints/r{number}/checkpoint.json"
        data = self.rows(number)
        if not checkpoint.exists() or data is None:
            return {}

        from workflow_scripts.training.bins import plan_rows
        from workflow_scripts.training.rows import usable

        manifest = read_json(checkpoint)
        settings = Train.model_validate({name: value for name, value in manifest["settings"].items() if name != "seed"})
        stale = set(manifest.get("stale", ()))
        rows, _ = usable([row for row in data.values() if row["uid"] not in stale], settings.max_length)
        plan = plan_rows(rows, settings, manifest["settings"]["seed"])
        per_update = len(plan.bins) // plan.updates
        updates: dict[str, list[int]] = {}
        for update in range(1, manifest["updates"] + 1):
            for unit in plan.bins[(update - 1) * per_update].update:
                for place in plan.units[unit]:
                    updates.setdefault(rows[place]["uid"], []).append(update)
        return updates

    def history(self, number: int) -> list[dict[str, Any]]:
        """Return the logged metrics of a round's training."""
        path = self.folder / f"checkpoints/r{number}/history.json"
        return read_json(path) if path.exists() else []

    def _logp(self, number: int, uid: str) -> float | None:
        """Return the mean stored log-prob of a row's sampled tokens."""
        data = self.data_file(number)
        folder = data.with_name(f"{data.stem}_logp") if data else None

        for path in sorted(folder.glob("*.pkl")) if folder and folder.is_dir() else []:
            values = read_pickle(path).get(uid)
            if values is not None and len(values):
                return float(values.mean())
        return None

    def left_out(self, number: int, prompt_id: str) -> dict[str, int]:
        """Return why answers to a question did not become rows, by selecting among the answers to it once more."""
        data = self.data_file(number)
        if data is None:
            return {}

        metas = {}
        for path in sorted(self.folder.glob(f"meta/r{number}_*_q2responses_*.pkl")):
            version = re.sub(r"^r\d+_([a-z]+)_.*", r"\1", path.name)
            meta = read_pickle(path)
            if prompt_id in meta:
                metas[version] = {prompt_id: meta[prompt_id]}

        settings = read_json(data.with_suffix(".json"))["settings"]
        selection = tasks.load(self.task, "Selection", settings.get("task"))
        rows, dropped = selection.select(metas, settings, settings["seed"], _no_new_text)
        reasons = dict(+dropped)

        answers = sum(len(entry["answers"]) for meta in metas.values() for entry in meta.values())
        rest = answers - len(rows) - sum(reasons.values())
        return reasons | ({"others, which the selection does not use": rest} if rest > 0 else {})

    # ------------------------------------------------------------ updates

    def rows_of_update(self, number: int, update: int) -> list[dict[str, Any]]:
        """Return the rows that an update of a round trained on. Raise BadInput if there is no such update."""
        by_uid = self.updates(number)
        last = max((updates[-1] for updates in by_uid.values()), default=0)
        if not 1 <= update <= last:
            has = f"it has updates 1 to {last}" if last else "it is not trained"
            raise BadInput(f"round {number} of {self.folder} has no update {update}: {has}")
        rows = self.rows(number) or {}
        return [rows[uid] for uid, updates in by_uid.items() if update in updates]


def _no_new_text(pieces: Any) -> tuple[list[int], list[int]]:
    """Stand in for a tokenizer: texts that a selection writes itself have no part in why an answer was left out."""
    return [], []
