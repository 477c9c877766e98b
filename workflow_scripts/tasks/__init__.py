"""Tasks: what is learnt, one wing each. A new task is a new file or folder here.

A task consists of parts, each of which one kind of stage uses, so that a change to one part reruns only the stages
beside it and what follows from them:

    Prompts        reads the questions, or makes them up                     freeze_prompts
    ColdStart      worked examples to learn from before the rounds           construct_sft, init_model
    Conversation   what the policy is asked, and the environment             generate
    Grading        the reward of an answer                                   grade
    Selection      what a round trains on                                    construct_meta, construct_data
    Evaluation     the metrics of a round                                    evaluate, report
    Importer       existing files in the original system's formats           import_results, _meta, _data, grade
    Rehearsal      scripted answers and a smaller config section             rehearse
    Settings       the task's section of the config                          (config)
    Wing           what the workflow's rules ask of the task                 (rules)

`tasks/defaults.py` has a default for each: a single-turn task with grouped rewards. A small task is one file with the
classes that differ. A larger one is a folder with one file per part (`prompts.py`, `cold_start.py`, …) beside the
stages that only this task has. Rules that only this task has stand in `rules/tasks/<task>.smk`.

No task imports another task: what tasks share is in `tasks/defaults.py`.
"""

import importlib
import re
from typing import Any

from workflow_scripts.config.task_section import find_spec_or_none
from workflow_scripts.core.running import plugins


def part_class(task: str, part: str) -> type:
    """Return the class of a task's part, such as "Grading", or the default one."""
    module, _, name = root(task, part).partition(":")
    return getattr(importlib.import_module(module), name)


def load(task: str, part: str, settings: dict[str, Any] | None = None, files: dict[str, str] | None = None) -> Any:
    """Return a part of a task.

    Args:
        task: the task's name.
        part: the part's name, such as "Grading".
        settings: keys of the config section named after the task that this part needs.
        files: paths of further input files, by name.
    """
    return part_class(task, part)(settings or {}, files or {})


def root(task: str, part: str) -> str:
    """Return where a part is defined, as "module:class": the root of its code, for digests."""
    base = plugins.module_name("tasks", task)
    own = re.sub(r"(?<!^)(?=[A-Z])", "_", part).lower()

    if find_spec_or_none(f"{base}.{own}"):
        return f"{base}.{own}:{part}"
    if part in _top_level_classes(base):
        return f"{base}:{part}"
    return f"workflow_scripts.tasks.defaults:{part}"


def _top_level_classes(module: str) -> set[str]:
    """Return the names of the classes of a one-file task."""
    spec = find_spec_or_none(module)
    if spec is None or spec.submodule_search_locations is not None:
        return set()
    return {name for name, value in vars(importlib.import_module(module)).items() if isinstance(value, type)}
