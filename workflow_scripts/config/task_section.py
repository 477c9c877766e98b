"""The section that a task adds to the config, with the facts about the task that the config is checked against."""

import importlib
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

from workflow_scripts.config.sections import Section
from workflow_scripts.core.running import plugins

if TYPE_CHECKING:
    from workflow_scripts.config.load import Config


class TaskSection(Section):
    """The base of all tasks' sections. A task without keys of its own uses it as it is."""

    makes_up: ClassVar[bool] = False  # whether the task can make up prompts and worked examples by `count`
    makes_pairs: ClassVar[bool] = False  # whether its rounds learn from preference pairs
    takes_reward: ClassVar[bool] = False  # whether `reward` chooses how answers are graded
    imports_results: ClassVar[bool] = False  # whether answers can be read from files (`results`)
    # The keys of this section in a first config that `init` writes for a file of questions; None if such a config needs
    # more than questions.
    starting: ClassVar[dict[str, Any] | None] = {}

    @property
    def uses_pool(self) -> bool:
        """True if the task selects or makes the train prompts from `prompts.pool`."""
        return False

    @property
    def answers_pool(self) -> bool:
        """True if a policy answers the prompts of the pool (version `pool`)."""
        return False

    def pool_fault(self, cfg: "Config") -> str:
        """Return what to tell if `prompts.pool` is given where it is not used, or missing where it is."""
        return f"prompts.pool: task {cfg.task!r} does not use a pool; give prompts.train"

    def rewards(self) -> dict[str, str | None]:
        """Return further keys of the config that name a reward, with their values."""
        return {}

    def train_prompts(self, cfg: "Config", pool: int | None) -> int | None:
        """Return how many train prompts the task makes from a pool of so many, at most; None if that is unknown."""
        return pool

    def most_units(self, cfg: "Config", prompts: int | None) -> int | None:
        """Return how many rows (or pairs) a round that answers so many prompts trains on, at most; None if unknown."""
        return None if prompts is None else prompts * self.rows_per_prompt(cfg)

    def rows_per_prompt(self, cfg: "Config") -> int:
        """Return how many rows a round trains on for each prompt, at most."""
        return cfg.generate.auto.samples

    @classmethod
    def complete(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Return the config's values with what follows from this section, such as files that the task's rules make."""
        return values

    def faults(self, cfg: "Config") -> Iterator[str]:
        """Yield what does not fit between this section and the others."""
        yield from ()


def section_of(task: str) -> type[TaskSection]:
    """Return the section of a task: the class Settings in its file or in its settings.py, or the base."""
    base = plugins.module_name("tasks", task)

    for module in (f"{base}.settings", base):
        if find_spec_or_none(module):
            section = getattr(importlib.import_module(module), "Settings", None)
            if section is not None:
                return section

    return TaskSection


def find_spec_or_none(module: str):
    """Return the spec of a module, or None if it, or its package, does not exist."""
    try:
        return find_spec(module)
    except ModuleNotFoundError:
        return None
