"""The config section `recommend`. A comment names the original's flag where that has another name."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from workflow_scripts.config.sections import Endpoint, Section
from workflow_scripts.config.task_section import TaskSection

if TYPE_CHECKING:
    from workflow_scripts.config.load import Config


FORMS = ("explored", "reranked", "sft")  # formats of a teacher's dialogues in files


class Player(Section):
    """The player of a part in a dialogue: a script, or a model behind an OpenAI-compatible endpoint."""

    engine: Literal["scripted", "openai"] = "scripted"  # what speaks: a script, or a model behind an endpoint
    openai: Endpoint | None = None  # the original: gpt-4.1-mini as seeker; gpt-4.1 or gemini-2.5-pro as teacher
    temperature: NonNegativeFloat = 0.0  # 0: greedy
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0  # of its sampling
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
    # A file of dialogues that a teacher had. It takes the place of `prompts.pool`, and no teacher is asked.
    explored: str | None = None  # as they were explored: TART's results/explore/….json
    reranked: str | None = None  # with lists that are rewritten already: TART's …_success_rerank.json
    sft: str | None = None  # as they are to be learnt: TART's …_last2interaction.json
    start: NonNegativeInt = 0  # explore the dialogues of prompts.pool from this number …
    end: PositiveInt | None = None  # … up to this one, which is excluded; null: up to the last one
    only_success: bool = True  # the cold start learns from successful dialogues only
    rerank: bool = True  # first rewrite successful lists: hits on top, no item twice, filled up to list_length
    train_only_interaction: bool = True  # the cold start learns the teacher's turns only, not those of the prompt

    @model_validator(mode="after")
    def is_not_empty(self):
        check_range(self.start, self.end)
        return self

    @model_validator(mode="after")
    def has_one_source(self):
        files = [name for name in FORMS if getattr(self, name)]
        if len(files) > 1:
            raise ValueError(f"{' and '.join(files)}: each is a file of all dialogues; give one of them")
        return self

    @property
    def source(self) -> tuple[str, str] | None:
        """The format and the file of dialogues that exist already."""
        return next(((name, file) for name in FORMS if (file := getattr(self, name))), None)


class Grounding(Section):
    """Settings by which the items that an utterance mentions are found and ranked."""

    # tfidf compares letters; openai calls an endpoint; else a Hugging Face encoder, mean-pooled; null: no embedder
    embedder: str | None = "tfidf"
    openai: Endpoint | None = None  # the embeddings endpoint; the original: text-embedding-ada-002
    vectors: str | None = (
        None  # a file or folder with the items' vectors, by the same model (vectors.py); null: embed them
    )
    text: str | None = None  # what is embedded of an item, such as "{title}: {plot}"; null: its `text`, else its title
    query: str | None = None  # what is embedded of an utterance, such as "assistant: {utterance}"; null: the utterance
    literal: bool = True  # titles that the utterance contains come first, in its order
    top_k: PositiveInt = 10  # a recommendation is right if a target is among so many items

    @model_validator(mode="after")
    def is_possible(self):
        if not (self.embedder or self.literal):
            raise ValueError("give an `embedder` or `literal: true`; without both, no utterance mentions any item")
        if (self.embedder == "openai") != (self.openai is not None):
            raise ValueError(
                "embedder openai and the section `openai` (`base_url` and `model`) need each other; give both"
            )
        if self.vectors and not self.needs_vectors:
            raise ValueError(
                f"vectors: embedder {self.embedder} compares no vectors; name the model that made them as `embedder`"
            )
        if self.query and "{utterance}" not in self.query:
            raise ValueError("query: it should contain {utterance}, where the utterance is put")
        return self

    @property
    def needs_vectors(self) -> bool:
        """True if a model embeds the items and utterances."""
        return self.embedder not in (None, "tfidf")

    @property
    def needs_model(self) -> bool:
        """True if that model is loaded here."""
        return self.needs_vectors and self.openai is None

    @property
    def model(self) -> str | None:
        """The name of the model whose vectors are compared."""
        return self.openai.model if self.openai else self.embedder


class Settings(TaskSection):
    """Dialogues with a simulated seeker.

    The turns of a dialogue (turn_num) are generate.auto.turns and generate.eval.turns. The rollouts per prompt
    (num_generations) are generate.auto.samples.
    """

    makes_up: ClassVar[bool] = True
    starting: ClassVar[dict[str, Any] | None] = None

    instruction: str | None = None  # what the recommender is told before the dialogue
    history: PositiveInt = 5  # the number of last utterances of a given dialogue that the recommender sees
    catalogue: str | None = None  # a file of items with `title`; null: the items that the dialogues mention
    seeker: Player = Player()  # knows the targets: accepts them, refuses other items, answers questions
    explore: Explore | None = None  # a teacher explores prompts.pool; null: no teacher
    grounding: Grounding = Grounding()  # which items an utterance means
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

    def train_prompts(self, cfg: "Config", pool: int | None) -> int | None:
        ends = [end for end in (pool, self.explore and self.explore.end) if end is not None]
        if not ends or self.explore is None:
            return None

        explored = min(ends) - self.explore.start
        return min(explored, self.end or explored) - self.start

    def rows_per_prompt(self, cfg: "Config") -> int:
        """With `rerank`, each right rollout is a further row; a group that is kept has at least one wrong one."""
        samples = cfg.generate.auto.samples
        return 2 * samples - 1 if self.rerank else samples

    def pool_fault(self, cfg: "Config") -> str:
        if self.uses_pool:
            return "prompts.pool: the teacher of `recommend.explore` explores it; give prompts.pool, not prompts.train"
        return "prompts.pool: only a teacher uses it; give `recommend.explore`, or prompts.train in place of the pool"

    @classmethod
    def complete(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Return the config's values with what follows from the teacher's dialogues.

        Dialogues in a file take the place of the pool. A cold start without a source learns the teacher's dialogues.
        """
        section = values.get("recommend")
        explore = section.get("explore") if isinstance(section, dict) else None
        if not isinstance(explore, dict):
            return values

        prompts = values.get("prompts")
        file = next((explore[name] for name in FORMS if explore.get(name)), None)
        if file and isinstance(prompts, dict):
            values = values | {"prompts": prompts | {"pool": {"file": file}}}

        cold_start = values.get("cold_start")
        if not isinstance(cold_start, dict):
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
