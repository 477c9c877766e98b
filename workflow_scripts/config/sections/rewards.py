"""Rewards: how answers are rewarded, by one reward or by a weighted sum of several."""

import re
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, NonNegativeFloat, PositiveFloat, PositiveInt, Tag, model_validator

from workflow_scripts.config.sections.base import Dtype, Name, Reward, Section, Share
from workflow_scripts.config.sections.endpoints import Endpoint
from workflow_scripts.core.running import plugins

OWN_GRADE = "task"  # the part that is the task's own grade


class Judge(Section):
    """A model that says which of two answers is better, or how good an answer is."""

    openai: Endpoint  # the endpoint that judges
    temperature: NonNegativeFloat = 0.0  # 0: greedy
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0  # of the judge's sampling
    max_tokens: PositiveInt = 16  # of a reply
    rubric: str | None = None  # a text file that says what makes an answer good; null: helpful, correct, well written
    swapped: Share = 0.0  # share of the pairs that are shown in both orders, which tells how consistent the judge is


class Part(Section):
    """A part of a composed reward: its value is multiplied by the weight and added to the reward."""

    reward: str  # `task` (the task's own grade), a built-in reward, the name of a task, or FILE.py:FUNCTION
    name: Name | None = None  # of its column and ledger; default: the name of the reward or of the function
    weight: float = 1.0  # 0: a metric only
    model: str | None = None  # of a reward that a model computes, or `trained`; default: reward_model
    options: dict[str, bool | int | float | str] = Field(default_factory=dict)  # of a built-in reward, see its file
    judge: Judge | None = None  # of the reward `judge`
    against: Literal["reference"] | None = None  # judge: compare with the reference; null: grade from 1 to 10

    @model_validator(mode="before")
    @classmethod
    def from_name(cls, value: Any) -> Any:
        return {"reward": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def is_complete(self):
        known = plugins.names("rewards")
        is_own_function = re.fullmatch(r".+\.py:\w+", self.reward)
        if not is_own_function and self.reward not in (OWN_GRADE, *known, *plugins.names("tasks")):
            names = ", ".join((OWN_GRADE, *known, *plugins.names("tasks")))
            raise ValueError(f"reward: there is no reward {self.reward!r}; choose {names}, or FILE.py:FUNCTION")

        constants = plugins.constants("rewards", self.reward) if self.reward in known else {}
        if "PARTS" in constants:
            parts = " and ".join(constants["PARTS"])
            raise ValueError(f"reward {self.reward} combines {parts}; list them as parts of their own")
        if bool(constants.get("NEEDS_JUDGE")) != (self.judge is not None):
            verb = "needs" if self.judge is None else "does not use"
            raise ValueError(f"reward {self.reward} {verb} the key `judge`")
        if self.against and not self.judge:
            raise ValueError(f"against: reward {self.reward} does not use this key")

        self._check_options(constants.get("OPTIONS", {}))
        return self

    def _check_options(self, known: dict[str, Any]) -> None:
        """Raise ValueError for options that the reward does not have, and for values of another type."""
        for name, value in self.options.items():
            if name not in known:
                raise ValueError(f"options.{name}: reward {self.reward} has the options {', '.join(known) or 'none'}")
            expected = type(known[name])
            is_number = expected is float and isinstance(value, int | float) and not isinstance(value, bool)
            if not (is_number or type(value) is expected):
                raise ValueError(f"options.{name}: should be {expected.__name__}, found {value!r}")

        for name, default in known.items():
            if default == "" and not self.options.get(name):
                raise ValueError(f"options.{name}: reward {self.reward} needs this option")

    @property
    def column(self) -> str:
        """The name of the part's column: letters, digits, dots, hyphens and underscores."""
        return self.name or re.sub(r"\W", "_", self.reward.rpartition(":")[2])

    @property
    def files(self) -> list[str]:
        """The local files that the part's value depends on, beside a model."""
        files = [self.judge.rubric] if self.judge and self.judge.rubric else []
        if ".py:" in self.reward:
            files.append(self.reward.rpartition(":")[0])
        if self.reward in plugins.names("rewards"):
            names = plugins.constants("rewards", self.reward).get("FILES", ())
            files += [str(self.options[name]) for name in names if name in self.options]
        return files


TRAINED = "trained"  # the model of a part that the run itself trains


class RewardTraining(Section):
    """A reward model that the run trains from preference pairs, before its first round."""

    objective: Literal["reward_model"] = "reward_model"  # -log sigmoid(score of chosen - score of rejected)
    file: str  # preference pairs: a local file, a folder of `datasets`, or a name on the Hugging Face hub
    prompt_key: str = "prompt"  # the key of the prompt in a record; none is needed if the answers begin with it
    chosen_key: str = "chosen"  # the key of the better answer
    rejected_key: str = "rejected"  # the key of the worse answer
    subset: str | None = None  # the configuration of a data set that has several
    split: str = "train"  # the split of a data set that has several
    revision: str | None = None  # of a data set on the hub: a commit, so that the pairs stay the same
    limit: PositiveInt | None = None  # use only the first so many records
    base: str | None = None  # the model to start from: a folder or a name on the hub; null: the run's own model
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.1  # share of the prompts whose pairs certify the model
    least_accuracy: Share = 0.6  # on held-out pairs; the stage fails below
    lr: PositiveFloat = 1e-5  # AdamW
    warmup: Share = 0.03  # share of the updates; then a cosine to zero
    epochs: PositiveInt = 1  # passes over the pairs
    batch_size: PositiveInt = 16  # pairs per update
    max_length: PositiveInt = 2048  # pairs with longer answers are rejected, never cut
    dtype: Dtype = "float32"  # of the arithmetic
    save_steps: PositiveInt = 200  # updates between two saved states
    threads: PositiveInt = 2  # CPU threads
    gpus: Literal[0, 1] = 1  # on machines that have any


REWARD_TAGS = ("<one reward>", "<parts of a reward>")


def _reward_tag(value: Any) -> str:
    return REWARD_TAGS[isinstance(value, list | tuple)]


Parts = Annotated[list[Part], Field(min_length=1)]
Rewards = Annotated[
    Annotated[Reward, Tag(REWARD_TAGS[0])] | Annotated[Parts, Tag(REWARD_TAGS[1])], Discriminator(_reward_tag)
]
