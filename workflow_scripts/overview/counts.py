"""Count the records that the pending stages of a run will compute, before anything is run.

Stages that map over records compute only what their ledgers lack. What that is follows from the questions, the answers
that exist, and what changed: an edited question has new answers, four more samples are four more answers, a changed
setting or another checkpoint makes all of them new.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from workflow_scripts import tasks
from workflow_scripts.core.files import read_json
from workflow_scripts.core.identity import shard_of
from workflow_scripts.core.records import read_records
from workflow_scripts.overview.jobs import Job, Survey

GENERATING = ("generate", "generate_eval")
SCORING = ("logp", "ref_logp")
# Settings of generation that no answer depends on: those of the batches, and how many answers there are.
NO_ANSWER_CHANGES = re.compile(r"generate\.(batch_size|\w+\.samples)")


@dataclass
class Count:
    """The records of a job."""

    records: int | None  # None if nobody knows
    is_exact: bool = True
    unit: str = "records"
    is_most: bool = False  # whether it may be fewer, but not more


class Counter:
    """Counts the records of the pending jobs of a run."""

    def __init__(self, survey: Survey):
        self.survey = survey
        self.folder = Path(survey.run)
        self.counts: dict[int, Count] = {}

        for number, job in enumerate(survey.jobs):
            if job.pending:
                self.counts[number] = self._count(job)

    def _count(self, job: Job) -> Count:
        if job.state in ("running", "interrupted") and job.progress and job.rule in (*GENERATING, *SCORING, "grade"):
            return Count(job.progress.total - job.progress.done)
        if job.rule in GENERATING:
            return self._answers(job)
        if job.rule == "grade":
            return self._grades(job)
        if job.rule in SCORING:
            return self._scores(job)
        if job.rule == "train":
            return self._updates(job)
        return Count(None, unit="")

    # ------------------------------------------------------------ answers

    def _answers(self, job: Job) -> Count:
        """Count the answers that the ledger of a generating job lacks."""
        version = self._version(job)
        total = self._all_answers(job, version)
        has_new_model = any(self.survey.jobs[number].pending for number in job.needs)
        has_new_settings = any(not NO_ANSWER_CHANGES.fullmatch(key) for key in job.changed)

        if not job.exists or has_new_model or has_new_settings:
            return Count(total, total is not None)
        return Count(len(self._missing_answers(job, version)))

    def _version(self, job: Job) -> str:
        return "eval" if job.rule == "generate_eval" else job.stage.split()[-1]

    def _all_answers(self, job: Job, version: str) -> int | None:
        """Return the number of all answers of a job, by the digest file of its shard or the number of all prompts."""
        requests = self._requests(version)
        samples = self.survey.samples.get(version)
        if version == "eval" and self.survey.samples_of_sets:
            return self._all_answers_of_set(job) if (self.folder / "prompts/eval.parquet").exists() else None
        if requests is None or samples is None:
            return None

        digests = [Path(path) for path in job.inputs if "/prompts/shards/" in path]
        if digests and digests[0].exists():
            return int(digests[0].read_text().split()[0]) * requests * samples

        prompts = self.survey.prompts["eval" if version == "eval" else "train"]
        shards = self._shards(job)
        return None if prompts is None else round(prompts * requests * samples / shards)

    def _all_answers_of_set(self, job: Job) -> int:
        """Return the number of all answers of a job that answers a part of the eval sets, from the frozen questions."""
        return sum(1 for _ in self._expected(job, "eval"))

    def _samples(self, job: Job, version: str, prompt: dict[str, Any]) -> int:
        """Return how many answers to a question a job gives; 0 if jobs of another eval set answer it."""
        apart = self.survey.samples_of_sets
        if version != "eval" or not apart:
            return self.survey.samples[version]

        own = Path(job.outputs[0]).parent.name  # of a set that is answered apart; else that of the round
        asked = prompt.get("set")
        if own in apart:
            return apart[own] if asked == own else 0
        return 0 if asked in apart else self.survey.samples[version]

    def _shards(self, job: Job) -> int:
        return int(Path(job.outputs[0]).stem.split("_")[0])

    def _requests(self, version: str) -> int | None:
        """Return how many ways a question is asked in; None if the task cannot tell without a question of its own."""
        if version not in self._requests_by_version:
            self._requests_by_version[version] = self._ask_task(version)
        return self._requests_by_version[version]

    @cached_property
    def _requests_by_version(self) -> dict[str, int | None]:
        return {}

    def _ask_task(self, version: str) -> int | None:
        split = "eval" if version == "eval" else "train"
        path = self.folder / f"prompts/{split}.parquet"
        dummy: dict[str, Any] = {"id": "", "question": "", "reference": "", "level": ""}
        prompt = next(iter(read_records(path)), dummy) if path.exists() else dummy
        try:
            return len(tasks.load(self.survey.task, "Conversation").requests(prompt, version))
        except (KeyError, TypeError, ValueError):  # the task needs fields or settings that are not known yet
            return None

    def _missing_answers(self, job: Job, version: str) -> list[str]:
        """Return the uids of the answers that a finished job lacks now, because questions or samples changed."""
        stored = {record["uid"]: record for record in read_records(job.outputs[0])}
        return [uid for uid, prompt in self._expected(job, version) if not _is_answered(stored.get(uid), prompt)]

    def _expected(self, job: Job, version: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the uid and the prompt of each answer that a job should have."""
        rank = int(Path(job.outputs[0]).stem.split("_")[1])
        path = next(path for path in job.inputs if path.endswith(".parquet"))
        conversation = tasks.load(self.survey.task, "Conversation")

        for prompt in self._prompts(path):
            if shard_of(prompt["id"], self._shards(job)) == rank:
                for trigger in conversation.requests(prompt, version):
                    for sample in range(self._samples(job, version, prompt)):
                        yield f"{prompt['id']}.{trigger}.{sample}", prompt

    def _prompts(self, path: str) -> list[dict[str, Any]]:
        if path not in self._prompts_by_path:
            self._prompts_by_path[path] = list(read_records(path))
        return self._prompts_by_path[path]

    @cached_property
    def _prompts_by_path(self) -> dict[str, list[dict[str, Any]]]:
        return {}

    # ------------------------------------------------------------ grades

    def _grades(self, job: Job) -> Count:
        """Count the answers that are graded: all, or those that are new or whose reference changed."""
        source = self._producer(job, GENERATING)
        if source is None or not source.pending:
            rows = self._rows(job, "_matchlog")
            return Count(rows, rows is not None)

        total = self._all_answers(source, self._version(source))
        new = self.counts[self.survey.jobs.index(source)]
        if job.changed or not job.exists or new.records == total:
            # An answer that is made again and comes out as before has its grade in the ledger.
            may_be_known = source.exists and job.exists and not job.changed
            return Count(total, new.is_exact and not may_be_known, is_most=may_be_known)

        stored = {record["uid"]: record for record in read_records(source.outputs[0])}
        expected = self._expected(source, self._version(source))
        return Count(sum(not _is_graded(stored.get(uid), prompt) for uid, prompt in expected))

    def _producer(self, job: Job, rules: tuple[str, ...]) -> Job | None:
        producers = (self.survey.jobs[number] for number in job.needs)
        return next((producer for producer in producers if producer.rule in rules), None)

    def _rows(self, job: Job, suffix: str) -> int | None:
        """Return the rows of the finished input of a job."""
        manifest = Path(job.outputs[0].replace(suffix, "")).with_suffix(".json")
        return read_json(manifest)["rows"] if manifest.exists() else None

    # ------------------------------------------------------------ training

    def _scores(self, job: Job) -> Count:
        """Count the rows that are scored: known if the data is there, else about those of the last round with data.

        Under the same checkpoint, rows that were scored before are in the ledger, so about those of new answers are
        left.
        """
        rows, is_exact = self._data_rows(job)
        if rows is None:
            return Count(None, False, "rows")

        checkpoint = self._producer(job, ("train", "cold_start", "init_model"))
        if job.exists and not job.changed and not (checkpoint and checkpoint.pending):
            rows = min(rows, self._new_answers(job.round))
            is_exact = False
        shards = self._shards(job)
        return Count(round(rows / shards), is_exact and shards == 1, "rows")

    def _new_answers(self, number: int) -> int:
        """Return the records that the pending grades of a round compute."""
        counts = [count for place, count in self.counts.items() if self._is_grade(self.survey.jobs[place], number)]
        return sum(count.records or 0 for count in counts)

    def _is_grade(self, job: Job, number: int) -> bool:
        return job.rule == "grade" and job.round == number and "evaluation" not in job.stage.split()

    def _updates(self, job: Job) -> Count:
        rows, is_exact = self._data_rows(job)
        return Count(None if rows is None else rows * self.survey.epochs, is_exact, "rows × epochs")

    def _data_rows(self, job: Job) -> tuple[int | None, bool]:
        """Return the rows of a round's training data, and whether they are those that the job will meet."""
        source = self._producer(job, ("construct_data", "import_data", "import_rows"))
        own = self._rows_of_round(job.round)
        if source is None and own is not None:
            return own, True

        before = [self._rows_of_round(number) for number in range(job.round, 0, -1)]
        last = next((rows for rows in before if rows is not None), None)
        is_exact = source is not None and not source.pending and own is not None
        return (own if is_exact else last), is_exact

    def _rows_of_round(self, number: int) -> int | None:
        paths = [path for path in self.folder.glob(f"data/offline_*_r{number}_*.json") if "." not in path.stem]
        return read_json(paths[0])["rows"] if paths else None


def _is_answered(stored: dict[str, Any] | None, prompt: dict[str, Any]) -> bool:
    """Return whether a stored answer is to this very question."""
    return stored is not None and all(stored.get(name) == prompt.get(name) for name in ("question", "messages"))


def _is_graded(stored: dict[str, Any] | None, prompt: dict[str, Any]) -> bool:
    """Return whether a stored answer, and with it its grade, stays as it is."""
    return _is_answered(stored, prompt) and stored is not None and stored.get("reference") == prompt.get("reference")
