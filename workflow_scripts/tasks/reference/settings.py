"""The config section `reference`."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from workflow_scripts.config.sections import Reward, Section
from workflow_scripts.config.task_section import TaskSection

if TYPE_CHECKING:
    from workflow_scripts.config.load import Config


class Selection(Section):
    """Selection of train prompts from `prompts.pool`, by how well the model that round 0 starts from answers them."""

    mode: Literal["hard", "easy", "medium", "random"] = "hard"  # the lowest, highest or middle scores, or any
    num_examples: PositiveInt = 5000  # prompts that are selected
    metric: Reward = "bleu"  # the score of an answer
    inference: str | None = None  # a .csv of answers that exist, with id and response; missing ones are generated
    scores: str | None = None  # scores that exist, by the prompts' ids: the pool is neither answered nor scored

    @model_validator(mode="after")
    def has_one_start(self):
        if self.inference and self.scores:
            raise ValueError("`scores` stands for answers and their scores, so leave `inference` out, or `scores`")
        return self


class Settings(TaskSection):
    """Settings of the references' source, and of the selection of train prompts from a pool."""

    makes_up: ClassVar[bool] = True
    takes_reward: ClassVar[bool] = True

    ref_models: list[str] = Field(["gold"], min_length=1)  # in files, the references are the columns ref_output_{model}
    references: PositiveInt = 3  # references of a made-up instruction; those of the split eval always have 3
    selection: Selection | None = None  # needs prompts.pool

    @property
    def uses_pool(self) -> bool:
        return self.selection is not None

    @property
    def answers_pool(self) -> bool:
        return self.selection is not None and self.selection.scores is None

    def train_prompts(self, cfg: "Config", pool: int | None) -> int | None:
        return self.selection.num_examples if self.selection else None

    def pool_fault(self, cfg: "Config") -> str:
        return (
            "`prompts.pool` and `reference.selection` belong together, because the train prompts are selected from the "
            "pool; give both, or `prompts.train` instead"
        )

    def rewards(self) -> dict[str, str | None]:
        return {"reference.selection.metric": self.selection.metric if self.selection else None}
