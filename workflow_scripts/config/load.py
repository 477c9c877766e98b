"""The whole config: its sections, what must hold between them, and how it is read.

`load` reports every fault at once, one line each with the path of the key and a hint (`ConfigError`). What must hold
between sections is checked once every section is valid by itself.
"""

import difflib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt, ValidationError, create_model

from workflow_scripts.config.generation_faults import faults_of_engines, faults_of_sampling
from workflow_scripts.config.sections import (
    EVAL_TAGS,
    ColdStart,
    Data,
    DeepSpeed,
    Evaluate,
    Generate,
    Judge,
    Logp,
    Lora,
    Metas,
    Model,
    Name,
    Prompts,
    Results,
    Reward,
    Rows,
    Section,
    Shards,
    Split,
    TaskName,
    Train,
    Wandb,
)
from workflow_scripts.config.task_section import TaskSection, section_of
from workflow_scripts.core.running import plugins
from workflow_scripts.core.templates import with_variables

# YAML reads a bare `off` as False.
OnOff = Annotated[Literal["on", "off"], BeforeValidator(lambda value: {True: "on", False: "off"}.get(value, value))]


ENTRIES = ("results", "meta", "rows")  # sections with existing files by round, in the order of a round's stages


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
    reward: Reward | None = None  # how answers are rewarded, for tasks that leave the choice
    reward_model: str | None = None  # for rm and bleu_rm a reward model, for bertscore an encoder
    judge: Judge | None = None  # compares a round's eval answers with those of the round before
    prompts: Prompts = Prompts()
    model: Model
    cold_start: ColdStart | None = None
    generate: Generate = Generate()
    evaluate: Evaluate = Evaluate()
    python: dict[str, str] = Field(default_factory=dict)  # the Python of an environment of envs/; else .venv-<name>
    results: dict[PositiveInt, Results] = Field(default_factory=dict)  # existing answers, by round
    meta: dict[PositiveInt, Metas] = Field(default_factory=dict)  # existing answers with grades, by round
    rows: dict[PositiveInt, Rows] = Field(default_factory=dict)  # existing training rows, by round
    data: Data = Data()
    logp: Logp = Logp()
    train: Train = Train()
    wandb: Wandb = Wandb()

    @property
    def full_template(self) -> str:
        """The template with its variables, as stages receive it."""
        return with_variables(self.template, self.template_variables)

    @property
    def task_section(self) -> TaskSection:
        """The section that the task adds to the config."""
        return getattr(self, self.task)

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
    location = tuple(part for part in fault["loc"] if part not in EVAL_TAGS)
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


# ---------------------------------------------------------------- faults between sections


def cross_section_faults(cfg: Config) -> Iterator[str]:
    """Yield what does not fit between the sections of a config."""
    yield from _faults_of_sources(cfg)
    yield from _faults_of_entries(cfg)
    yield from faults_of_engines(cfg)
    yield from _faults_of_environments(cfg)
    yield from _faults_of_rewards(cfg)
    yield from _faults_of_training(cfg)
    yield from faults_of_sampling(cfg)
    yield from cfg.task_section.faults(cfg)


def _faults_of_sources(cfg: Config) -> Iterator[str]:
    section = cfg.task_section
    sources = {
        "prompts.train": cfg.prompts.train,
        "prompts.pool": cfg.prompts.pool,
        "data.source": cfg.data.source,
    }
    present = [key for key, value in sources.items() if value]
    needs_none = bool(cfg.entries) and not cfg.answering_rounds  # all rounds start from existing files

    if len(present) != 1 and not (needs_none and not present):
        yield (
            "give exactly one of `prompts.train` (questions to answer), `prompts.pool` (prompts to select or make them "
            f"from) and `data.source` (existing rows); found {' and '.join(present) or 'none'}"
        )
    elif bool(cfg.prompts.pool) != section.uses_pool:
        yield section.pool_fault(cfg)

    if not (cfg.evaluates or cfg.data.source or needs_none):
        yield "prompts.eval: this key is required; only a run on existing rows (`data.source`) can do without it"
    if cfg.prompts.screening and not (cfg.prompts.train or cfg.prompts.pool):
        yield "prompts.screening: there are no prompts to screen; give prompts.train or prompts.pool"
    if cfg.evaluate.suites and not cfg.evaluates:
        yield "evaluate.suites: their metrics stand beside those of the eval questions; give prompts.eval"
    if cfg.judge and not cfg.evaluates:
        yield "judge: it compares answers to the eval questions; give prompts.eval"

    counted: dict[str, Split | ColdStart | None] = {
        ".".join(filter(None, ("prompts", split, name))): source
        for split in ("train", "pool", "eval")
        for name, source in cfg.prompts.sources(split).items()
    }
    counted["cold_start"] = cfg.cold_start
    for key, value in counted.items():
        if value and value.count and not section.makes_up:
            yield f"{key}.count: task {cfg.task!r} cannot make up questions; give {key}.file"

    if cfg.data.source and cfg.prompts_per_round:
        yield (
            "prompts_per_round: with `data.source`, each round trains on all existing rows and answers no prompts; "
            "remove this key"
        )
    if cfg.template_variables and cfg.template != "chat":
        yield f"template_variables: the template {cfg.template} has none; use `template: chat`, or remove this key"
    if cfg.model.scratch and not cfg.cold_start:
        yield "cold_start: a model from `scratch` knows nothing, so it needs this section"


def _faults_of_entries(cfg: Config) -> Iterator[str]:
    """A round starts from existing files at one stage only, and the task must be able to read them."""
    by_section = {name: getattr(cfg, name) for name in ENTRIES}

    for name, rounds in by_section.items():
        if rounds and cfg.data.source:
            yield f"{name}: they stand in for a round's own, and with `data.source` there are none; remove one"
        if rounds and name != "rows" and not cfg.task_section.imports_results:
            yield f"{name}: task {cfg.task!r} cannot read answers from files; remove this section"

    for n in sorted(set().union(*by_section.values())):
        named = [name for name, rounds in by_section.items() if n in rounds]
        if len(named) > 1:
            yield f"round {n} starts from {' and from '.join(named)}; name its files in one of these sections only"

    for n, rows in cfg.rows.items():
        if rows.logp and not Path(rows.file).is_file():
            yield f"rows.{n}.logp: log-probs are of the rows in one file, but {rows.file} is none"
        is_pairs = rows.format == "preference"
        if rows.format != "task" and is_pairs != (cfg.train.unit == "pairs"):
            yield (
                f"rows.{n}.format {rows.format}: these are {'preference pairs' if is_pairs else 'single rows'}, but "
                f"train.objective {cfg.train.objective} learns from {cfg.train.unit}"
            )


def _faults_of_environments(cfg: Config) -> Iterator[str]:
    for name in cfg.python:
        if name not in environments():
            yield f"python.{name}: there is no such environment; environments are {', '.join(environments())}"


def environments() -> list[str]:
    """Return the names of the Python environments that parts of the project have for themselves."""
    of_engines = (plugins.constants("engines", name).get("ENVIRONMENT") for name in plugins.names("engines"))
    of_sections = (DeepSpeed.ENVIRONMENT, Lora.ENVIRONMENT_OF_BITS, *Evaluate.ENVIRONMENTS.values())
    return sorted({*filter(None, of_engines), *of_sections})


def _faults_of_rewards(cfg: Config) -> Iterator[str]:
    section = cfg.task_section

    if cfg.reward and not section.takes_reward:
        yield f"reward: task {cfg.task!r} grades in its own way; remove this key"
    if cfg.judge and not section.compares_rounds:
        yield f"judge: it compares answers in words, but task {cfg.task!r} counts right answers; remove this section"

    for key, name in {"reward": cfg.reward, **section.rewards()}.items():
        if name and needs_model(name) and not cfg.reward_model:
            yield f"reward_model: {key} {name} is computed by a model; give its folder or its name on the hub"


def needs_model(reward: str | None) -> bool:
    """Return whether a model computes this reward."""
    return bool(reward in plugins.names("rewards") and plugins.constants("rewards", reward).get("NEEDS_MODEL"))  # type: ignore


def _faults_of_training(cfg: Config) -> Iterator[str]:
    train = cfg.train

    has_rows_only = bool(cfg.rows) and all(n in cfg.rows for n in range(1, cfg.rounds + 1))
    is_unknown = cfg.data.source is not None and cfg.data.source.format == "task"
    if not (has_rows_only or is_unknown) and (train.unit == "pairs") != cfg.learns_from_pairs:
        data = "preference pairs" if cfg.learns_from_pairs else "single rows"
        yield (
            f"train.objective {train.objective}: it learns from {train.unit}, but the rounds' data are {data} "
            "(preference pairs come from `data.source` with format preference, or from a task that makes pairs)"
        )
    if (train.needs_behaviour or train.needs_reference) and cfg.logp.dtype != train.dtype:
        yield (
            f"logp.dtype {cfg.logp.dtype} and train.dtype {train.dtype}: stored log-probs are compared with those of "
            "training, so both must be the same"
        )
