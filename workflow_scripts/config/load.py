"""The whole config: its sections, what must hold between them, and how it is read.

`load` reports every fault at once, one line each with the path of the key and a hint (`ConfigError`), and what does not
fit between sections as well.
"""

import json
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt, ValidationError, create_model

from workflow_scripts.config.faults import ENTRIES, cross_section_faults
from workflow_scripts.config.rewards import parts_of
from workflow_scripts.config.sections import (
    ColdStart,
    Data,
    Evaluate,
    Generate,
    Judge,
    Keep,
    Logp,
    Metas,
    Model,
    Name,
    Part,
    Prompts,
    Publish,
    Results,
    Rewards,
    RewardTraining,
    Rows,
    Section,
    Shards,
    TaskName,
    Train,
    Wandb,
)
from workflow_scripts.config.task_section import TaskSection, section_of
from workflow_scripts.config.wording import describe, is_single_key, is_told, model_in, path_of, without
from workflow_scripts.core.running import plugins
from workflow_scripts.core.running.cli import merged
from workflow_scripts.core.templates import with_variables

# YAML reads a bare `off` as False.
OnOff = Annotated[Literal["on", "off"], BeforeValidator(lambda value: {True: "on", False: "off"}.get(value, value))]


class ConfigError(Exception):
    """Raised for a config that cannot be used; one line for each fault."""


class Config(Section):
    """A run's config. The section of the task is a further field, named after the task (see `config_model`)."""

    name: Name  # the run's folder is runs/<name>/
    task: TaskName  # what is learnt: a file or folder of workflow_scripts/tasks/
    expname: Name | None = None  # the model's tag in file names; default: the run's name
    rounds: Annotated[int, Field(ge=0, le=10_000)] = 3  # the rounds that are made without a target
    seed: NonNegativeInt = 0  # of prompts, weights, sampling and the training order
    shards: Shards = Shards(auto=2)  # jobs per record stage and round: a number, or numbers by what they work on
    prompts_per_round: PositiveInt | None = None  # prompts that a round answers, a new part each time; null: all
    template: Literal["deepseek", "alpaca", "chat"] = "deepseek"  # prompt template; chat: the tokenizer's own
    template_variables: dict[str, bool | int | float | str] = Field(default_factory=dict)  # of the tokenizer's template
    sandbox: OnOff = "on"  # isolate programs that the model writes; off runs them unprotected
    evaluate_every: PositiveInt = 1  # rounds from one evaluation to the next; the last round is always evaluated
    code_changes: Literal["stop", "remake"] = (
        "stop"  # what to do if only changed code would make finished results again
    )
    reward: Rewards | None = None  # how answers are rewarded: a reward, or a list of weighted parts; null: the task's
    reward_model: str | None = None  # for rm, bleu_rm and reward_model a reward model, for bertscore an encoder
    train_reward_model: RewardTraining | None = None  # a reward model of the run's own, for parts with `model: trained`
    judge: Judge | None = None  # compares a round's eval answers with those of the round before
    prompts: Prompts = Prompts()
    model: Model
    cold_start: ColdStart | None = None
    generate: Generate = Generate()
    evaluate: Evaluate = Evaluate()  # benchmark suites beside the eval questions
    python: dict[str, str] = Field(default_factory=dict)  # the Python of an environment of envs/; else .venv-<name>
    results: dict[PositiveInt, Results] = Field(default_factory=dict)  # existing answers, by round
    meta: dict[PositiveInt, Metas] = Field(default_factory=dict)  # existing answers with grades, by round
    rows: dict[PositiveInt, Rows] = Field(default_factory=dict)  # existing training rows, by round
    data: Data = Data()
    logp: Logp = Logp()
    train: Train = Train()
    tracking: Literal["wandb", "tensorboard", "mlflow"] = "wandb"  # where curves of training are kept
    wandb: Wandb = Wandb()
    publish: Publish = Publish()  # licences on the cards of `round<n>_publish`
    keep: Keep = Keep()  # what is kept of earlier rounds

    @property
    def full_template(self) -> str:
        """The template with its variables, as stages receive it."""
        return with_variables(self.template, self.template_variables)

    @property
    def task_section(self) -> TaskSection:
        """The section that the task adds to the config."""
        return getattr(self, self.task)

    @property
    def chosen_reward(self) -> str | None:
        """The reward by which the task itself grades, if it leaves the choice and `reward` names one."""
        return self.reward if isinstance(self.reward, str) and self.task_section.takes_reward else None

    @property
    def reward_parts(self) -> dict[str, Part]:
        """The parts of a composed reward, by the names of their columns; none if the task's own reward counts."""
        return {part.column: part for part in parts_of(self)}

    @property
    def versions(self) -> list[str]:
        """The versions in which answers are generated."""
        versions = ["auto", *(["trigger"] if self.generate.trigger else [])]
        versions += ["eval"] if self.evaluates else []
        return [*versions, *(["pool"] if self.task_section.answers_pool else [])]

    @property
    def evaluates(self) -> bool:
        """True if there are questions that metrics are computed on."""
        return self.prompts.eval is not None

    @property
    def screens_rows(self) -> bool:
        """True if training rows that exist already are compared with the eval prompts."""
        screening = self.prompts.screening
        return self.evaluates and screening is not None and screening.contamination is not None

    def of_set(self, name: str) -> "Config":
        """Return the config as it holds for an eval set, with the sampling and the task's settings of that set."""
        source = self.prompts.sets_apart.get(name)
        if source is None:
            return self

        changes: dict[str, Any] = {}
        if source.sampling:
            sampling = source.sampling.over(self.generate.eval)
            changes["generate"] = self.generate.model_copy(update={"eval": sampling})
        if source.settings:
            section = self.task_section
            values = merged(section.model_dump(mode="json", exclude_unset=True), source.settings)
            changes[self.task] = type(section).model_validate(values)
        return self.model_copy(update=changes)

    @property
    def entries(self) -> dict[int, str]:
        """The rounds that start from existing files, with the section that names them: results, meta or rows."""
        return {n: name for name in ENTRIES for n in getattr(self, name)}

    @property
    def answering_rounds(self) -> list[int]:
        """The rounds, up to the config's last one, whose questions are answered here."""
        return [] if self.data.source else [n for n in range(1, self.rounds + 1) if n not in self.entries]

    @property
    def learns_from_pairs(self) -> bool:
        """True if a round's own data, or `data.source`, are preference pairs."""
        return self.data.source.format == "preference" if self.data.source else self.task_section.makes_pairs


# ---------------------------------------------------------------- reading


def load(values: dict[str, Any]) -> Config:
    """Validate a whole config. Raise ConfigError with every fault."""
    values = _with_nulls(values)
    task = values.get("task")
    section = section_of(task) if task in plugins.names("tasks") else TaskSection
    model = config_model(task, section) if task in plugins.names("tasks") else Config

    try:
        cfg = model.model_validate(section.complete(values))
    except ValidationError as error:
        faults = error.errors(include_url=False)
        lines = [*dict.fromkeys(describe(fault, values, model) for fault in faults if is_told(fault, faults))]
        lines += _faults_beyond(faults, values, section, model)
    else:
        lines = list(cross_section_faults(cfg))
        if not lines:
            return cfg

    raise ConfigError("\n".join(f"config: {line}" for line in lines))


def _faults_beyond(
    faults: Sequence[Any], values: dict[str, Any], section: type[TaskSection], model: type[Config]
) -> list[str]:
    """Return what does not fit between sections, where no key that is wrong by itself has a part in it.

    The wrong keys are left out for that. If a whole section is wrong, nothing can be said.
    """
    keys = [path_of(fault) for fault in faults]
    if any(not is_single_key(key, model) for key in keys):
        return []

    try:
        cfg = model.model_validate(section.complete(without(values, keys)))
    except ValidationError:
        return []
    names = {str(key[-1]) for key in keys}
    return [line for line in cross_section_faults(cfg) if not names & set(re.findall(r"\w+", line))]


def config_model(task: str, section: type[TaskSection]) -> type[Config]:
    """Return the model of a config with the section of this task."""
    if task in Config.model_fields:
        raise ConfigError(f"config: task {task}: the name of a task must not be a key of the config")

    needs_values = any(field.is_required() for field in section.model_fields.values())
    default = ... if needs_values else section()
    return create_model("Config", __base__=Config, **{task: (section, default)})  # type: ignore[call-overload]


def settings_help(path: str, *names: str) -> str:
    """Return the keys of a config section with their defaults, for a stage's --help.

    Args:
        path: the section's key, such as `train` or `tabular.merge`.
        names: the keys that the stage uses; none if it uses all.
    """
    first, *rest = path.split(".")
    section: Any = section_of(first) if first in plugins.names("tasks") else _section_at(Config, first)
    for key in rest:
        section = _section_at(section, key)

    keys = []
    for name, field in section.model_fields.items():
        if not names or name in names:
            default = field.get_default(call_default_factory=True)
            keys.append(name if field.is_required() else f"{name} {_shown(default)}")

    return f"the config's `{path}` section as JSON: {', '.join(keys)}".replace("%", "%%")


def _section_at(section: Any, key: str) -> Any:
    return model_in(section.model_fields[key].annotation)


def _shown(value: Any) -> str:
    """Return a default as in YAML, in one line."""
    if isinstance(value, Section):
        return "{" + ", ".join(f"{name}: {_shown(inner)}" for name, inner in value) + "}"
    return value if isinstance(value, str) else json.dumps(value)


def _with_nulls(value: Any) -> Any:
    """Read the text "null" as null: Snakemake's `--config` leaves the values within a mapping as text."""
    if isinstance(value, dict):
        return {key: _with_nulls(item) for key, item in value.items()}

    return None if value == "null" else value
