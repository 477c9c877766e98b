"""Say in words why a job runs: changed settings as `train.lr: 1e-6 → 2e-6`, changed code, changed files.

Snakemake compares the parameters of a job as a set of command line pieces, such as `--settings '{"lr": 1e-06}'`, and
shows both sets. Here they are taken apart, so that only the keys that differ remain, under their names in the config.
"""

import ast
import json
import re
import shlex
from collections.abc import Callable, Iterable
from typing import Any

from pydantic_core import PydanticUndefined

from workflow_scripts.config.load import config_model, model_in
from workflow_scripts.config.sections import Section
from workflow_scripts.config.sections.values import neutral_value
from workflow_scripts.config.task_section import section_of

CODE = re.compile(r"--code ([0-9a-f]{12})")
UNSET = object()  # the value of a key that a command leaves out, and that has no neutral value either
LONGEST = 60  # characters of a shown value

# The section of the config that the option --settings of a rule holds. Other rules are named in place of a section.
SECTIONS = {
    "freeze_prompts": "prompts",
    "init_model": "model",
    "stand_in": "model",
    "construct_sft": "cold_start",
    "cold_start": "cold_start.train",
    "generate": "generate",
    "generate_eval": "generate",
    "construct_data": "data",
    "import_data": "data",
    "import_rows": "data",
    "logp": "logp",
    "ref_logp": "logp",
    "import_logp": "logp",
    "judge": "judge",
    "train": "train",
}


# ---------------------------------------------------------------- settings


def differences(rule: str, task: str, before: Iterable[str], now: Iterable[str]) -> dict[str, tuple[Any, Any]]:
    """Return the values before and now of the settings of a job that changed, by the key of the config.

    Args:
        rule: the job's rule, which decides the section of its settings.
        task: the config's task, whose section is named after it.
        before: the command line pieces that only the finished job had, as Snakemake records them.
        now: the pieces that only the present job has.
    """
    old = _values(rule, task, before)
    new = _values(rule, task, now)
    differing = {}

    for key in sorted(old.keys() | new.keys()):
        values = old.get(key, _neutral(key, task)), new.get(key, _neutral(key, task))
        if values[0] != values[1]:
            differing[key] = values
    return differing


def changed_settings(rule: str, task: str, before: Iterable[str], now: Iterable[str]) -> list[str]:
    """Return the settings of a job that changed, as "key: before → now"; the arguments are those of `differences`."""
    changed = differences(rule, task, before, now)
    return [f"{key}: {_shown(old)} → {_shown(new)}" for key, (old, new) in changed.items()]


def code_digests(pieces: Iterable[str]) -> list[str]:
    """Return the digests of code among command line pieces."""
    matches = map(CODE.fullmatch, map(_unquoted, pieces))
    return [match[1] for match in matches if match]


def _values(rule: str, task: str, pieces: Iterable[str]) -> dict[str, Any]:
    """Return the values in command line pieces by the key of the config; code is left out."""
    values: dict[str, Any] = {}

    for piece in map(_unquoted, pieces):
        if not CODE.fullmatch(piece):
            for option, texts in _options(piece):
                values |= _flattened(_section(option, rule, task), _value(texts))

    return values


def _unquoted(piece: str) -> str:
    """Return a piece as it stands in the command; Snakemake records the `repr` of texts."""
    piece = str(piece)
    try:
        value = ast.literal_eval(piece)
    except (SyntaxError, ValueError):  # a piece of a present command
        return piece
    return value if isinstance(value, str) else piece


def _options(piece: str) -> list[tuple[str, list[str]]]:
    """Return the options of a piece with their values."""
    options: list[tuple[str, list[str]]] = []

    for word in shlex.split(piece):
        if word.startswith("--"):
            options.append((word.removeprefix("--").replace("-", "_"), []))
        elif options:
            options[-1][1].append(word)

    return options


def _section(option: str, rule: str, task: str) -> str:
    if option == "settings":
        return SECTIONS.get(rule, rule)
    return task if option == "task_settings" else option


def _value(texts: list[str]) -> Any:
    """Return the value of an option: True for a switch, nested values for JSON, else text."""
    if not texts:
        return True

    text = " ".join(texts)
    try:
        return json.loads(text)
    except ValueError:
        return text


def _flattened(key: str, value: Any) -> dict[str, Any]:
    """Return nested settings as {dotted key: value}."""
    if not isinstance(value, dict):
        return {key: value}

    flat: dict[str, Any] = {}
    for name, item in value.items():
        flat |= _flattened(f"{key}.{name}", item)
    return flat


def _neutral(key: str, task: str) -> Any:
    """Return the value that a key of the config has if commands leave it out; UNSET if it has none."""
    section: type[Section] | None = config_model(task, section_of(task))
    value: Any = UNSET

    for part in key.split("."):
        if section is None or part not in section.model_fields:
            return UNSET
        value = neutral_value(section.model_fields[part])
        section = model_in(section.model_fields[part].annotation)

    return UNSET if value is None or value is PydanticUndefined or isinstance(value, Section) else value


def _shown(value: Any) -> str:
    """Return a value as one would write it in the config."""
    if value is UNSET:
        return "default"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return re.sub(r"e([+-])0*(\d)", lambda match: f"e{match[1].strip('+')}{match[2]}", repr(value))

    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


# ---------------------------------------------------------------- reasons


def reasons(job: Any, reason: Any, change: Any, task: str, changed_code: Callable[[str, str], list[str]]) -> list[str]:
    """Return why a job runs, in words. A job that only follows from other jobs has no reason of its own.

    Args:
        job: Snakemake's job.
        reason: Snakemake's reason for it.
        change: the parameters that changed, as Snakemake's persistence finds them.
        task: the config's task.
        changed_code: returns the definitions that differ between two digests of code.
    """
    texts = []

    if reason.forced:
        texts.append("forced by an option of the command")
    if reason.missing_output:
        texts.append("not made yet")
    if reason.incomplete_output:
        texts.append("was cut off")
    if change:
        texts += of_parameters(job.rule.name, task, change, changed_code)
    if files := sorted(set(map(str, reason.updated_input)) - set(map(str, reason.updated_input_run))):
        others = [file for file in files if "/prompts/shards/" not in file]
        texts += ["its questions changed"] if len(others) < len(files) else []
        texts += [f"changed: {_files_text(others)}"] if others else []
    if reason.input_changed:
        texts.append("it has other input files than before")
    if reason.software_stack_changed:
        texts.append("its software environment changed")

    return texts


def of_parameters(rule: str, task: str, change: Any, changed_code: Callable[[str, str], list[str]]) -> list[str]:
    """Return the changed settings and the changed code of a job, in words."""
    settings = changed_settings(rule, task, change.only_old, change.only_new)
    return [*settings, *_code_texts(change, changed_code)]


def _code_texts(change: Any, changed_code: Callable[[str, str], list[str]]) -> list[str]:
    before, now = code_digests(change.only_old), code_digests(change.only_new)
    if not (before or now):
        return []

    names = changed_code(before[0], now[0]) if before and now else []
    return [f"code: {_files_text(names)}" if names else "its code changed"]


def _files_text(names: list[str]) -> str:
    shown = ", ".join(names[:2])
    return f"{shown} and {len(names) - 2} more" if len(names) > 2 else shown
