"""The config section `recommend`. A comment names the original's flag where that has another name."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from workflow_scripts.config.sections import Endpoint, Section
from workflow_scripts.config.task_section import TaskSection

if TYPE_CHECKING:
    from workflow_scripts.config.load import Config


class Player(Section):
    """Who plays a part in a dialogue: a script, or a model behind an OpenAI-compatible endpoint."""

    engine: Literal["scripted", "openai"] = "scripted"
    openai: Endpoint | None = None  # the original: gpt-4.1-mini as seeker; gpt-4.1 or gemini-2.5-pro as teacher
    temperature: NonNegativeFloat = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_tokens: PositiveInt = 512  # of one utterance of the seeker; generate.pool limits the teacher

    @model_validator(mode="after")
    def has_endpoint_if_needed(self):
        if (self.engine == "openai") != (self.openai is not None):
            raise ValueError(
                "engine openai and the section `openai` (`base_url` and `model`) need each other: give both, or neither"
            )
        return self


class Explore(Section):
    """The teacher's dialogues with the seeker, and what the cold start and the rounds take from them."""

    teacher: Player = Player()  # gpt_model
    start: NonNegativeInt = 0  # explore the dialogues of prompts.pool from this number …
    end: PositiveInt | None = None  # … up to this one, which is excluded; null: up to the last one
    only_success: bool = True  # the cold start learns from successful dialogues only
    rerank: bool = True  # first rewrite successful lists: hits on top, no item twice, filled up to list_length
    train_only_interaction: bool = True  # the cold start learns the teacher's turns only, not those of the prompt

    @model_validator(mode="after")
    def is_not_empty(self):
        check_range(self.start, self.end)
        return self


class Grounding(Section):
    """How the items that an utterance mentions are found and ranked."""

    embedder: str | None = "tfidf"  # a Hugging Face encoder, mean-pooled; tfidf compares letters; null: no embedder
    literal: bool = True  # titles that the utterance contains come first, in its order
    top_k: PositiveInt = 10  # a recommendation is right if a target is among so many items

    @model_validator(mode="after")
    def is_possible(self):
        if not (self.embedder or self.literal):
            raise ValueError("give an `embedder` or `literal: true`; without both, no utterance mentions any item")
        return self

    @property
    def needs_model(self) -> bool:
        """Whether a model embeds the items and utterances."""
        return self.embedder not in (None, "tfidf")


class Settings(TaskSection):
    """Dialogues with a simulated seeker.

    The turns of a dialogue (turn_num) are generate.auto.turns and generate.eval.turns. The rollouts per prompt
    (num_generations) are generate.auto.samples.
    """

    makes_up: ClassVar[bool] = True

    instruction: str | None = None  # what the recommender is told before the dialogue
    history: PositiveInt = 5  # the number of last utterances of a given dialogue that the recommender sees
    catalogue: str | None = None  # a file of items with `title`; null: the items that the dialogues mention
    seeker: Player = Player()  # knows the targets: accepts them, refuses other items, answers questions
    explore: Explore | None = None  # a teacher explores prompts.pool; null: no teacher
    grounding: Grounding = Grounding()
    list_length: PositiveInt = 10  # items of a recommendation: "1. …" to "10. …"
    hardcore: bool = False  # OSR: a rollout ends at its first recommendation, right or wrong; evaluation goes on
    tgi: bool = False  # rollouts start within the teacher's dialogue, generate.auto.turns interactions before its hit
    new_tgi: bool = False  # likewise, after a random number of the teacher's turns, at most as many as with tgi
    rerank: bool = False  # a right list, rewritten as in `explore`, is a further row: foreign, so no ratio is taken
    reward: float = 0.0  # what a failed rollout loses: its reward is -reward
    bonus: NonNegativeFloat = 0.0  # the reward of a hit is 1 + bonus / interactions, so that early hits count more
    off_formatcheck: bool = False  # do not check that lists are numbered from 1 to list_length
    rec_format_check: bool = False  # a rollout without any recommendation fails the check too
    resamples: NonNegativeInt = 2  # draw a rollout that fails the check so often again; then it counts as failed
    start: NonNegativeInt = 0  # the rounds learn on the explored dialogues from this number …
    end: PositiveInt | None = None  # … up to this one, which is excluded; null: up to the last one

    @model_validator(mode="after")
    def is_possible(self):
        if (self.tgi or self.new_tgi) and not self.explore:
            raise ValueError("tgi and new_tgi start from the teacher's dialogues, so they need `explore`")
        if self.tgi and self.new_tgi:
            raise ValueError("tgi and new_tgi are two ways to cut the teacher's dialogues: choose one")
        if self.off_formatcheck and self.rec_format_check:
            raise ValueError("off_formatcheck turns off the check that rec_format_check extends: choose one")

        check_range(self.start, self.end)
        return self

    @property
    def uses_pool(self) -> bool:
        return self.explore is not None

    def pool_fault(self, cfg: "Config") -> str:
        if self.uses_pool:
            return "prompts.pool: the teacher of `recommend.explore` explores it; give prompts.pool, not prompts.train"
        return "prompts.pool: only a teacher uses it; give `recommend.explore`, or prompts.train in place of the pool"

    @classmethod
    def complete(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Return the config's values; a cold start without a source of its own learns the teacher's dialogues."""
        section = values.get("recommend")
        cold_start = values.get("cold_start")

        has_teacher = isinstance(section, dict) and isinstance(section.get("explore"), dict)
        if not has_teacher or not isinstance(cold_start, dict):
            return values
        if cold_start.get("file") is not None or cold_start.get("count") is not None:
            return values

        tag = values.get("expname") or values.get("name")
        file = f"runs/{values.get('name')}/explore/{tag}_sft.jsonl"
        return values | {"cold_start": cold_start | {"file": file}}

    def faults(self, cfg: "Config") -> Iterator[str]:
        if cfg.generate.trigger:
            yield "generate.trigger: task 'recommend' asks in one way only; set generate.trigger to null"
        if cfg.generate.is_remote("auto"):
            yield (
                "generate.auto.engine: the policy itself answers in dialogues; a teacher has its place in "
                "`recommend.explore`; use transformers or vllm"
            )
        if cfg.cold_start and cfg.cold_start.count:
            yield (
                "cold_start.count: task 'recommend' makes up dialogues, not worked answers; give `recommend.explore`, "
                "or cold_start.file with conversations (`messages`)"
            )


def check_range(start: int, end: int | None) -> None:
    """Raise ValueError if no dialogue lies between two numbers."""
    if end is not None and end <= start:
        raise ValueError(f"start {start} and end {end} leave no dialogue")
