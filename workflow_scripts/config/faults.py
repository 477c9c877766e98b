"""What does not fit between the sections of a config."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from workflow_scripts.config.generation_faults import faults_of_engines, faults_of_sampling
from workflow_scripts.config.rewards import faults_of_rewards
from workflow_scripts.config.sections import ColdStart, DeepSpeed, Evaluate, Lora, Split
from workflow_scripts.core.running import plugins

if TYPE_CHECKING:
    from workflow_scripts.config.load import Config

ENTRIES = ("results", "meta", "rows")  # sections with existing files by round, in the order of a round's stages


def cross_section_faults(cfg: "Config") -> Iterator[str]:
    """Yield what does not fit between the sections of a config."""
    yield from _faults_of_sources(cfg)
    yield from _faults_of_entries(cfg)
    yield from faults_of_engines(cfg)
    yield from _faults_of_environments(cfg)
    yield from faults_of_rewards(cfg)
    yield from _faults_of_training(cfg)
    yield from faults_of_sampling(cfg)
    yield from cfg.task_section.faults(cfg)


def _faults_of_sources(cfg: "Config") -> Iterator[str]:
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
        yield (
            "prompts.eval: this key is required; only a run whose rounds all start from existing files can do without "
            "it"
        )
    if cfg.evaluate.suites and not cfg.evaluates:
        yield "evaluate.suites: their metrics stand beside those of the eval questions; give prompts.eval"
    if cfg.judge and not cfg.evaluates:
        yield "judge: it compares answers to the eval questions; give prompts.eval"

    train = cfg.prompts.train
    evaluated = [source.model_dump(include=set(Split.model_fields)) for source in cfg.prompts.sources("eval").values()]
    if train and train.file and train.model_dump() in evaluated:
        yield (
            f"prompts.eval: these are the questions of prompts.train ({train.file}), so none would be left to train "
            "on; divide them into two files, as `python -m workflow_scripts.init` does"
        )

    for name in cfg.prompts.sets_apart:
        try:
            cfg.of_set(name)
        except ValidationError as error:
            for fault in error.errors(include_url=False):
                key = ".".join(map(str, fault["loc"]))
                message = fault["msg"].removeprefix("Value error, ")
                yield f"prompts.eval.{name}.settings.{key}: {message}; these are keys of the section {cfg.task}"

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
    if cfg.data.source and cfg.data.replay:
        yield "data.replay: with `data.source`, all rounds train on the same rows; remove this key"
    if cfg.data.source and cfg.data.truncated != "keep":
        yield f"data.truncated {cfg.data.truncated}: how the rows of `data.source` ended is unknown; remove this key"
    if cfg.data.source and cfg.data.max_length:
        yield "data.max_length: rows of `data.source` are not cut; remove this key"
    if cfg.data.max_length and cfg.data.max_length > cfg.train.max_length:
        yield (
            f"data.max_length {cfg.data.max_length}: training rejects rows longer than train.max_length "
            f"{cfg.train.max_length}; use at most that"
        )
    if cfg.data.truncated_reward and cfg.data.truncated != "penalise":
        yield "data.truncated_reward: only `truncated: penalise` uses it; remove this key"
    if cfg.template_variables and cfg.template != "chat":
        yield f"template_variables: the template {cfg.template} has none; use `template: chat`, or remove this key"
    if cfg.model.scratch and not cfg.cold_start:
        yield "cold_start: a model from `scratch` knows nothing, so it needs this section"


def _faults_of_entries(cfg: "Config") -> Iterator[str]:
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


def _faults_of_environments(cfg: "Config") -> Iterator[str]:
    for name in cfg.python:
        if name not in environments():
            yield f"python.{name}: there is no such environment; environments are {', '.join(environments())}"


def environments() -> list[str]:
    """Return the names of the Python environments that parts of the project have for themselves."""
    of_engines = (plugins.constants("engines", name).get("ENVIRONMENT") for name in plugins.names("engines"))
    of_sections = (DeepSpeed.ENVIRONMENT, Lora.ENVIRONMENT_OF_BITS, *Evaluate.ENVIRONMENTS.values())
    return sorted({*filter(None, of_engines), *of_sections})


def _faults_of_training(cfg: "Config") -> Iterator[str]:
    train = cfg.train

    has_rows_only = bool(cfg.rows) and all(n in cfg.rows for n in range(1, cfg.rounds + 1))
    is_unknown = cfg.data.source is not None and cfg.data.source.format == "task"
    if not (has_rows_only or is_unknown) and (train.unit == "pairs") != cfg.learns_from_pairs:
        data = "preference pairs" if cfg.learns_from_pairs else "single rows"
        yield (
            f"train.objective {train.objective}: it learns from {train.unit}, but the rounds' data are {data} "
            "(preference pairs come from `data.source` with format preference, or from a task that makes pairs)"
        )
    if cfg.data.replay and (train.unit == "pairs" or not train.needs_behaviour):
        yield f"data.replay: objective {train.objective} takes no ratios, so it cannot weigh rows of earlier policies"
    if train.max_staleness and not cfg.data.replay:
        yield "train.max_staleness: only rows that are replayed can be stale; give data.replay, or remove this key"
    if (train.needs_behaviour or train.needs_reference) and cfg.logp.dtype != train.dtype:
        yield (
            f"logp.dtype {cfg.logp.dtype} and train.dtype {train.dtype}: stored log-probs are compared with those of "
            "training, so both must be the same"
        )
