"""The whole config: its sections, what must hold between them, and how it is read.

`load` reports every fault at once, one line each with the path of the key and a hint (`ConfigError`). What must hold
between sections is checked once every section is valid by itself.
"""

import difflib
import json
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt, ValidationError, create_model

from workflow_scripts.config.faults import ENTRIES, cross_section_faults
from workflow_scripts.config.rewards import parts_of
from workflow_scripts.config.sections import (
    EVAL_TAGS,
    REWARD_TAGS,
    ColdStart,
    Data,
    Evaluate,
    Generate,
    Judge,
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
from workflow_scripts.core.running import plugins
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
    wandb: Wandb = Wandb()
    publish: Publish = Publish()  # licences on the cards of `round<n>_publish`

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
        lines = [_describe(fault, values, model) for fault in error.errors(include_url=False)]
    else:
        lines = list(cross_section_faults(cfg))
        if not lines:
            return cfg

    raise ConfigError("\n".join(f"config: {line}" for line in lines))


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


def model_in(annotation: Any) -> type[Section] | None:
    """Return the section that an annotation such as `dict[int, Results] | None` contains."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation

    return next(filter(None, map(model_in, get_args(annotation))), None)


def _with_nulls(value: Any) -> Any:
    """Read the text "null" as null: Snakemake's `--config` leaves the values within a mapping as text."""
    if isinstance(value, dict):
        return {key: _with_nulls(item) for key, item in value.items()}

    return None if value == "null" else value


# ---------------------------------------------------------------- faults within sections


def _describe(fault: Any, values: dict[str, Any], model: type[Config]) -> str:
    location = tuple(part for part in fault["loc"] if part not in (*EVAL_TAGS, *REWARD_TAGS))
    path = ".".join(map(str, location))

    if fault["type"] == "extra_forbidden":
        return f"{path}: there is no such key; {_hint_for_key(location, values, model)}"
    if fault["type"] == "missing":
        return f"{path}: this key is required"

    message = fault["msg"].removeprefix("Value error, ")
    value = fault.get("input")
    shown = "" if isinstance(value, (dict, list)) or value is None else f", found {value!r}"
    return f"{path}: {message}{shown}" if path else f"{message}{shown}"


def _hint_for_key(location: tuple, values: dict[str, Any], model: type[Config]) -> str:
    key = str(location[-1])
    known = _keys_beside(location, model)

    if near := difflib.get_close_matches(key, known, n=1):
        return f"did you mean {near[0]!r}?"
    if len(location) == 1 and key in plugins.names("tasks"):
        return f"this section belongs to task {key}, but the task is {values.get('task')}"

    return f"known keys: {', '.join(known)}"


def _keys_beside(location: tuple, model: type[Config]) -> list[str]:
    """Return the keys that would be right in place of an unknown one."""
    section: type[Section] | None = model

    for part in location[:-1]:
        if section is not None and part in section.model_fields:
            section = model_in(section.model_fields[part].annotation)
        # else the part is a key of a mapping, such as a round's number, whose section was found one step before

    return sorted(section.model_fields) if section else []
