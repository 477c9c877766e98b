"""The default parts of a task: a question has one answer in a single turn, answers are rewarded, groups are compared.

Tasks subclass the parts in which they differ. See `tasks/__init__.py` for which stage uses which part.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

from workflow_scripts.core.advantages import advantages
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.formats import worked_keys
from workflow_scripts.core.identity import normalise, record_id
from workflow_scripts.core.records import (
    Answer,
    GradedAnswer,
    Message,
    MetaEntry,
    Piece,
    Prompt,
    WorkedExample,
)
from workflow_scripts.core.running.cli import say
from workflow_scripts.core.sources import records_of
from workflow_scripts.rollout.environment import Environment
from workflow_scripts.tasks._rehearsal import Rehearsal, ScriptedAnswer  # noqa: F401  the default part for rehearsals

if TYPE_CHECKING:
    from workflow_scripts.config.layout import Run
    from workflow_scripts.config.load import Config
    from workflow_scripts.config.sections import Train

RunProgram = Callable[[str], dict[str, Any]]  # runs a program in the sandbox: {"output": str, "error": str or None}
Encode = Callable[[list[Piece]], tuple[list[int], list[int]]]  # pieces → tokens and mask


class Part:
    """Base class of all parts, with the keys of the task's config section and the files that the part needs."""

    def __init__(self, settings: Mapping[str, Any], files: Mapping[str, str]):
        self.settings = settings
        self.files = files


# ---------------------------------------------------------------- prompts


class Prompts(Part):
    """Questions with references, from a file or made up."""

    def read(self, source: dict[str, Any], split: str, seed: int) -> Iterator[Prompt]:
        """Yield the prompts of a source. A prompt with a `fault` becomes a reject with that reason.

        Args:
            source: a section Split of the config.
            split: what the prompts are for: train, pool or eval. It is the level of records without one.
            seed: determines prompts that are made up.
        """
        yield from file_prompts(source, split)

    def key(self, prompt: Prompt) -> str:
        """Return the text by which two prompts count as the same."""
        return prompt["question"]

    def fault(self, prompt: Prompt) -> str | None:
        """Return why a prompt cannot be used, or None; general faults are checked before."""
        reference = prompt.get("reference")
        is_missing = reference is None or reference == [] or (isinstance(reference, str) and not reference.strip())
        return "no answer" if is_missing else None


def file_prompts(source: dict[str, Any], split: str, published: Sequence[tuple[str, str]] = ()) -> Iterator[Prompt]:
    """Yield the prompts of a file or data set, with references as they stand there.

    `published` lists the keys of question and reference in data sets that the task knows.
    """
    keys: tuple[str, str] | None = None

    for record in islice(records_of(source), source["limit"]):
        keys = keys or prompt_keys(source, split, record, published)

        question = record.get(keys[0])
        has_id = record.get("id") not in (None, "")
        yield {
            "id": str(record["id"]) if has_id else record_id(str(question)),
            "question": question,  # type: ignore[typeddict-item]  (checked when prompts are frozen)
            "reference": record.get(keys[1]),
            "level": str(record.get("level") or split),
            "fault": no_names(record, ("id", "level")) or no_value(record.get(keys[1])),
        }


def no_names(record: dict[str, Any], columns: Sequence[str]) -> str | None:
    """Return why a value in one of the columns cannot name anything, or None."""
    for column in columns:
        value = record.get(column)
        is_name = value is None or isinstance(value, str | int | float)
        if not is_name or isinstance(value, bool) or value != value:
            return f"the {column} is {value!r:.40}; it should be text or a number"
    return None


def no_value(reference: Any) -> str | None:
    """Return why a reference is not one that an answer could match, or None."""
    if isinstance(reference, bool) or (isinstance(reference, float) and math.isinf(reference)):
        return f"the answer is {reference}; it should be text or a finite number"
    return None


def prompt_keys(
    source: dict[str, Any], split: str, record: dict[str, Any], published: Sequence[tuple[str, str]]
) -> tuple[str, str]:
    """Return the keys of question and reference in a source, by its first record.

    A key that the config names counts. For the others, the first pair of keys that the record has counts: the default
    one, or one of `published`. Raise BadInput if the record has none: then the keys are wrong.
    """
    default = ("question", "answer")
    own = (source["question_key"], source["answer_key"])

    for pair in (default, *published):
        keys = tuple(key if key != usual else known for key, usual, known in zip(own, default, pair))
        if record.keys() >= set(keys):
            return keys  # type: ignore[return-value]

    missing = next(key for key in own if key not in record)
    raise BadInput(
        f"{source['file']}, record 1: has no {missing!r}, only {', '.join(map(repr, record))}; "
        + (
            "its columns seem to be separated by semicolons: save it with commas, or as .tsv with tabs"
            if len(record) == 1 and ";" in next(iter(record))
            else f"name the keys of question and answer with prompts.{split}.question_key and "
            f"prompts.{split}.answer_key"
        )
    )


def check_count(split: str, level: str, count: int, available: int, what: str) -> None:
    """Raise BadInput if a task cannot make up so many different prompts of a level."""
    if count > available:
        raise BadInput(f"prompts.{split}.count.{level}: {count} {what} requested, only {available} exist")


class ColdStart(Part):
    """Worked examples for the supervised training before the rounds."""

    def examples(self, cold_start: dict[str, Any], seed: int) -> Iterator[WorkedExample]:
        """Yield the examples of a file of questions with worked solutions, or made-up ones by `count`."""
        if cold_start["count"]:
            raise BadInput("cold_start.count: this task cannot make up worked examples; give cold_start.file")

        yield from worked_examples(cold_start, lambda solution: [(solution, True)])


def worked_examples(cold_start: dict[str, Any], pieces_of: Callable[[str], list[Piece]]) -> Iterator[WorkedExample]:
    """Yield the questions of a file with their worked solutions, which `pieces_of` cuts into pieces.

    A record without a question or a solution has a `fault`.
    """
    keys = None

    for record in records_of(cold_start):
        keys = keys or worked_keys(cold_start, set(record))
        if keys is None:
            raise BadInput(f"{cold_start['file']}: there are no worked solutions, only {', '.join(record)}")

        question, solution = (record.get(key) for key in keys)
        example: WorkedExample = {"question": str(question), "pieces": pieces_of(str(solution)), "trigger": "auto"}
        for key, text in zip(keys, (question, solution)):
            if not (isinstance(text, str) and text.strip()):
                example["fault"] = f"{key} should be text that is not empty"
        yield example


# ---------------------------------------------------------------- conversation


class Conversation(Part):
    """The part of a task that asks the questions and answers the policy."""

    triggers: Mapping[str, str] = {}  # name → text that is added to the question in trigger mode

    def requests(self, prompt: Prompt, version: str) -> dict[str, str | list[Message]]:
        """Return what the policy is asked in a version, as text or messages, by trigger ("auto": nothing is added)."""
        if version != "trigger":
            return {"auto": prompt.get("messages") or prompt["question"]}
        if not self.triggers:
            raise BadInput("this task asks in one way only: set generate.trigger to null")
        return {name: prompt["question"] + text for name, text in self.triggers.items()}

    def environment(self, version: str, options: "EnvironmentOptions") -> Environment:
        """Return what answers the policy in a version."""
        return Environment()

    def segments(self, answer: str) -> list[Piece]:
        """Cut an answer that exists only as text into pieces by the policy and pieces by the environment."""
        return [(answer, True)]


class EnvironmentOptions:
    """Settings of an environment's execution; no result depends on them.

    Args:
        isolate: whether programs run in the sandbox.
        endpoints: limits, prices and budgets of endpoints, nested as the task's section is.
        requests: the folder of ledgers of paid requests.
        shard: the name of this shard, for ledgers.
        programs: how many programs run at the same time.
    """

    def __init__(
        self,
        isolate: bool = True,
        endpoints: dict[str, Any] | None = None,
        requests: str = "",
        shard: str = "1_0",
        programs: int = 1,
    ):
        self.isolate = isolate
        self.endpoints = endpoints or {}
        self.requests = requests
        self.shard = shard
        self.programs = programs


# ---------------------------------------------------------------- grading


class Grading(Part):
    """The reward of an answer."""

    runs_programs: ClassVar[bool] = False  # whether grading runs programs, and so needs the sandbox
    depends_on: ClassVar[tuple[str, ...]] = ("uid", "question", "answer", "reference")  # fields that a grade depends on

    def prepare(self, options: "EnvironmentOptions") -> None:
        """Take note of how endpoints are called, for grading that calls one."""
        self.running = options

    def close(self) -> None:
        """Release what grading holds."""

    def grade_batch(self, answers: Sequence[Answer], run: RunProgram) -> list[dict[str, Any]]:
        """Return the fields that grading adds to each of some answers."""
        return [self.grade(answer, run) for answer in answers]

    def grade(self, answer: Answer, run: RunProgram) -> dict[str, Any]:
        """Return the fields that grading adds to an answer: `reward`, and what explains it.

        By default the reward is 1 for an answer that reads like the reference and 0 otherwise. `run` runs a program in
        the sandbox, for tasks whose grading runs programs.
        """
        return {"reward": float(normalise(answer["answer"]) == normalise(str(answer["reference"])))}

    def fault(self, graded: Sequence[dict[str, Any]]) -> str | None:
        """Return why a round cannot learn from a shard's answers, or None. It stops the run before other shards end."""
        return None

    def right_answer(self, prompt: Prompt) -> str | None:
        """Return an answer that must count as right, or None if the task knows none.

        When prompts are frozen, this answer is graded. A reference that does not even match it is unusable.
        """
        return None

    def summary(self, graded: Sequence[dict[str, Any]], answers: Sequence[dict[str, Any]]) -> dict[str, float]:
        """Return the figures that the stage prints. `answers` are the records as they were before grading."""
        return {"reward": sum(answer["reward"] for answer in graded) / max(1, len(graded)), "n": len(graded)}


class RewardedGrading(Grading):
    """Grading by a reward that the config chooses (`reward`, `reward_model`)."""

    reward: str | None = None
    reward_model: str | None = None

    def choose_reward(self, reward: str | None, reward_model: str | None) -> None:
        self.reward = reward
        self.reward_model = reward_model


# ---------------------------------------------------------------- selection

KEPT_OF_ANSWERS = ("uid", "answer", "reward", "prompt_tokens", "tokens", "mask", "policy", "finish")


class Selection(Part):
    """The part of a task that selects training rows: all answers, with advantages within each prompt's group."""

    kept: ClassVar[tuple[str, ...]] = ()  # further fields of a graded answer that selection needs

    def order(self, entry: MetaEntry) -> str:
        """Return the text by which prompts are ordered."""
        return entry["question"]

    def construct_meta(self, answers: Sequence[GradedAnswer], dedup: bool) -> dict[str, MetaEntry]:
        """Return the graded answers by the id of their prompt. `dedup` keeps equal answers to a prompt once."""
        meta: dict[str, MetaEntry] = {}

        for answer in answers:
            entry = meta.setdefault(answer["id"], meta_entry(answer))
            if dedup and any(answer["answer"] == other["answer"] for other in entry["answers"]):
                continue
            entry["answers"].append({name: answer[name] for name in (*KEPT_OF_ANSWERS, *self.kept)})

        return meta

    def counts(self, meta: dict[str, MetaEntry]) -> dict[str, int]:
        """Return what the manifest of a meta file counts."""
        return {"answers": sum(len(entry["answers"]) for entry in meta.values())}

    def select(
        self, metas: dict[str, dict[str, MetaEntry]], settings: dict[str, Any], seed: int, encode: Encode
    ) -> tuple[list[dict[str, Any]], Counter[str]]:
        """Return the training rows of a round and, by reason, how many answers were dropped.

        Args:
            metas: the meta files by version.
            settings: the config's section `data`.
            seed: determines what is drawn.
            encode: tokenises an answer that is written anew.
        """
        rows = []
        for entry in sorted(metas["auto"].values(), key=self.order):
            rows += [training_row(entry, answer, kind="auto") for answer in entry["answers"]]

        return with_advantages(rows, settings)


def meta_entry(answer: GradedAnswer) -> MetaEntry:
    """Return a meta entry for the prompt of an answer, without answers yet."""
    return {
        "id": answer["id"],
        "question": answer["question"],
        "reference": answer["reference"],
        "level": answer["level"],
        "prompt_text": answer["prompt_text"],
        "answers": [],
    }


def training_row(entry: MetaEntry, answer: Mapping[str, Any], kind: str, **fields: Any) -> dict[str, Any]:
    """Return the training row of an answer, without an advantage."""
    kept = {name: answer[name] for name in KEPT_OF_ANSWERS}
    origin = {
        "prompt_id": entry["id"],
        "question": entry["question"],
        "reference": entry["reference"],
        "level": entry["level"],
        "prompt_text": answer.get("prompt_text", entry["prompt_text"]),
        "kind": kind,
        "source": f"self.{entry['level']}",
    }
    return origin | kept | fields


def with_advantages(
    rows: list[dict[str, Any]], settings: dict[str, Any], right: float | None = None
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Give rows their advantage within the group of their prompt; drop groups without variance and count the rows.

    `right` is the reward of a right answer: a group of right answers only is kept.
    """
    rewards = [row["reward"] for row in rows]
    groups = [row["prompt_id"] for row in rows]
    limits = {"limit": settings["advantage_clip"], "epsilon": settings["std_epsilon"]}
    values = advantages(rewards, groups, settings["advantage"], right, **limits)

    kept = [row | {"advantage": value} for row, value in zip(rows, values) if value is not None]
    dropped: Counter[str] = Counter()
    if len(kept) < len(rows):
        dropped["answer in a group without variance"] = len(rows) - len(kept)

    return kept, dropped


# ---------------------------------------------------------------- evaluation


class Evaluation(Part):
    """The metrics of a checkpoint's answers to the eval questions."""

    # metric → (label, format); rounds are compared by the first one
    metrics: ClassVar[dict[str, tuple[str, str]]] = {"reward": ("mean reward", ".3f")}
    right: ClassVar[str | None] = (
        "reward"  # the value that is 1 for right answers and 0 for wrong ones, if there is one
    )

    def summarise(self, answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return the metrics of all answers, and under `by_level` those of each level.

        An answer has `before` (the round before's answer to the same question) and `judged` (the judge's verdict), if
        there are any.
        """
        return by_level(answers, self.measure)

    def measure(self, answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return the metrics of some answers, with their number `n`."""
        return self.means(answers) | {"n": len(answers)}

    def values(self, answer: dict[str, Any]) -> dict[str, float]:
        """Return the metrics of one answer. Only metrics that are means of such values get intervals and tests."""
        return {"reward": answer["reward"]}

    def vote(self, answer: dict[str, Any]) -> str | None:
        """Return the final answer that counts in a majority vote among samples, or None if the answer states none."""
        return None

    def means(self, answers: Sequence[dict[str, Any]]) -> dict[str, float]:
        """Return the means of the answers' values; without answers, 0 for every metric of the task."""
        columns = [self.values(answer) for answer in answers]
        names = columns[0] if columns else self.metrics
        return {name: mean(column[name] for column in columns) for name in names}


def by_level(answers: Sequence[dict[str, Any]], measure: Callable[[Sequence[dict[str, Any]]], dict]) -> dict[str, Any]:
    """Return the metrics of all answers, and those of the answers to each level's questions."""
    if not answers:
        say("there are no answers to evaluate")

    levels = sorted({answer["level"] for answer in answers})
    of_levels = {level: measure([answer for answer in answers if answer["level"] == level]) for level in levels}
    return measure(answers) | {"by_level": of_levels}


def mean(values) -> float:
    """Return the mean of some numbers, 0 if there are none."""
    values = list(values)
    return sum(values) / max(1, len(values))


# ---------------------------------------------------------------- existing answers


class Importer(Part):
    """Answers, meta files and training rows that exist as files, in this project's own form.

    A task whose original system has forms of its own tells them apart and converts them. What converted records lack
    (ids and tokens) the stages that import them add.
    """

    needed: ClassVar[tuple[str, ...]] = ("question", "answer", "reference", "prompt_text", "level")
    right: ClassVar[float | None] = None  # the reward of a right answer, for advantages (core/advantages.py)
    known: ClassVar[Mapping[str, str]] = {  # the forms of each kind of file, for messages
        "results": "a run's answers (question, answer, reference, prompt_text, level)",
        "meta": "a run's meta file ({id: {id, question, reference, level, prompt_text, answers}})",
        "rows": "a run's training rows (uid, prompt_text, answer, prompt_tokens, tokens, mask, policy, advantage)",
    }

    def is_foreign_format(self, record: dict[str, Any]) -> bool:
        """Return whether a record has the field names of the original system."""
        return False

    def convert(self, record: dict[str, Any]) -> dict[str, Any]:
        """Return a record of the original system with this project's field names and, if known, its trigger."""
        return record

    def is_foreign_meta(self, entry: dict[str, Any]) -> bool:
        """Return whether an entry of a meta file is of the original system."""
        return False

    def convert_meta(self, question: str, entry: dict[str, Any], version: str, where: str) -> dict[str, Any]:
        """Return an entry of the original system's meta file with the fields of a MetaEntry, without its id.

        Its answers have answer, reward, trigger, prompt_text (None if it is not stored) and what the selection needs.
        `where` names the file and the entry, for errors.
        """
        return entry

    def merge_meta(self, entry: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
        """Return one entry for two whose questions read alike."""
        return entry | {"answers": entry["answers"] + other["answers"]}

    def is_foreign_row(self, record: dict[str, Any]) -> bool:
        """Return whether a training row is of the original system."""
        return False

    def convert_row(self, record: dict[str, Any], where: str) -> dict[str, Any]:
        """Return a training row of the original system with this project's fields, without tokens and advantage.

        It has uid, prompt_id, question, answer, reward, trigger, and prompt_text (None if it is not stored).
        """
        return record


# ---------------------------------------------------------------- the workflow


class Wing:
    """The part of a task that the rules use: further inputs, parameters and products of the general stages.

    `stage` is the name of a rule. For `generate`, which serves several versions, it is `generate`, `generate_eval` or
    `generate_pool`.
    """

    def __init__(self, cfg: "Config", run: "Run"):
        self.cfg = cfg
        self.run = run

    def files(self, stage: str) -> dict[str, str]:
        """Return further input files of a stage by name. Paths may contain the wildcard {n}."""
        return {}

    def settings(self, stage: str) -> dict[str, Any]:
        """Return the keys of the task's section that the results of a stage depend on."""
        return {}

    def endpoints(self, stage: str) -> dict[str, Any]:
        """Return how endpoints in the task's section are called in a stage (`endpoints_of`)."""
        return {}

    def calls_endpoint(self, stage: str) -> bool:
        """Return whether a stage calls an endpoint of the task's section, such as a simulated user."""
        return False

    def training(self, stage: str) -> "Train | None":
        """Return the config section of a training stage of the task's own."""
        return None

    def loads_model(self, stage: str) -> bool:
        """Return whether a stage that needs no GPU loads a small model, for its memory."""
        return False

    def models(self, stage: str) -> dict[str, str]:
        """Return models beside the policy that a stage loads, by config key: folders, or names on the hub."""
        return {}

    def reward(self, stage: str) -> str | None:
        """Return the name of the reward that a stage of the task's own computes."""
        return None

    def products(self, n: int) -> list[str]:
        """Return further files that a finished round n has."""
        return []

    def targets(self, n: int) -> dict[str, list[str]]:
        """Return the files of further stages of round n that can be asked for by name, as in round1_score."""
        return {}

    def named_files(self) -> dict[str, str]:
        """Return files that the task's section names, by config key, so that missing ones are reported early."""
        return {}

    def prompt_files(self) -> list[str]:
        """Return files beside those of the splits that the frozen prompts are made from."""
        return []
