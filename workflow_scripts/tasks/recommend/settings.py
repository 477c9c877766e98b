"""The config's section `recommend`, with the meaning of the original's flags (hirooms2/Learning2Interact)."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from workflow_scripts.config.sections import OpenAI, Section


class Player(Section):
    """Who plays a part in a dialogue: a script, or a model behind an OpenAI-compatible endpoint, served here or not."""

    engine: Literal["scripted", "openai"] = "scripted"
    openai: OpenAI | None = None  # the original's: gpt-4.1-mini as seeker; gpt-4.1 or gemini-2.5-pro as teacher
    temperature: NonNegativeFloat = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_tokens: PositiveInt = 512  # of one utterance of the seeker; the teacher's are limited by generate.pool

    @model_validator(mode="after")
    def endpoint_where_needed(self):
        if (self.engine == "openai") != (self.openai is not None):
            raise ValueError("engine openai and the section `openai` (`base_url` and `model`) belong together")
        return self


class Explore(Section):
    """The teacher's dialogues with the seeker, and what the cold start and the rounds take from them."""

    teacher: Player = Player()  # gpt_model
    start: NonNegativeInt = 0  # the dialogues of prompts.pool from here …
    end: PositiveInt | None = None  # … up to here, this one excluded
    only_success: bool = True  # the cold start learns from successful dialogues alone
    rerank: bool = True  # successful lists are rewritten first: hits on top, no item twice, filled to list_length
    train_only_interaction: bool = True  # the cold start learns the teacher's turns alone, not the given dialogue's

    @model_validator(mode="after")
    def some(self):
        if self.end is not None and self.end <= self.start:
            raise ValueError(f"start {self.start} and end {self.end} leave no dialogue")
        return self


class Grounding(Section):
    """Which items of the catalogue an utterance speaks of, as a ranking."""

    embedder: str | None = "tfidf"  # a Hugging Face encoder, mean-pooled; tfidf of letters needs none; null: none
    literal: bool = True  # titles that stand in the utterance come first, in its order
    top_k: PositiveInt = 10  # a recommendation is right with a target among so many

    @model_validator(mode="after")
    def some(self):
        if not (self.embedder or self.literal):
            raise ValueError("give an `embedder`, or `literal: true`: else no utterance speaks of any item")
        return self


class Recommend(Section):
    """Dialogues with a simulated seeker. Turns per dialogue (turn_num) are generate.auto.turns and generate.eval.turns,
    rollouts per prompt (num_generations) generate.auto.samples."""

    seeker: Player = Player()  # knows the targets: accepts them, refuses others, answers questions
    explore: Explore | None = None
    grounding: Grounding = Grounding()
    list_length: PositiveInt = 10  # items of a recommendation: "1. …" to "10. …"
    hardcore: bool = False  # OSR: a rollout ends at its first recommendation, right or wrong; evaluation goes on
    tgi: bool = False  # rollouts start from the teacher's dialogue, cut so that generate.auto.turns of it remain
    new_tgi: bool = False  # likewise, but from a random number of the teacher's turns, none to as many as with tgi
    rerank: bool = False  # a right list, rewritten as in explore, is one more row: foreign, so likelihood, no ratio
    reward: float = 0.0  # what a failed rollout loses: its reward is -reward
    bonus: NonNegativeFloat = 0.0  # a hit's reward is 1 + bonus / interactions: early ones count more
    off_formatcheck: bool = False  # no check that lists are numbered from 1 to list_length and end there
    rec_format_check: bool = False  # a rollout without any recommendation fails the check too
    resamples: NonNegativeInt = (
        2  # how often a rollout that fails the check is drawn again; the last one counts as failed
    )
    start: NonNegativeInt = 0  # the rounds learn on the explored dialogues from here …
    end: PositiveInt | None = None  # … up to here, this one excluded

    @model_validator(mode="after")
    def possible(self):
        if (self.tgi or self.new_tgi) and not self.explore:
            raise ValueError("tgi and new_tgi start from the teacher's dialogues: they need `explore`")
        if self.tgi and self.new_tgi:
            raise ValueError("tgi and new_tgi are two ways to cut the teacher's dialogues: choose one")
        if self.off_formatcheck and self.rec_format_check:
            raise ValueError("off_formatcheck turns the check off that rec_format_check widens: choose one")
        if self.end is not None and self.end <= self.start:
            raise ValueError(f"start {self.start} and end {self.end} leave no dialogue")
        return self
