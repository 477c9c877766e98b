"""Describe the faults within the sections of a config in words, with what would be right."""

import copy
import difflib
from collections.abc import Iterable, Sequence
from typing import Any, get_args

from workflow_scripts.config.sections import EVAL_TAGS, HIDDEN, REWARD_TAGS, Section
from workflow_scripts.core.running import plugins

# What other libraries call a key, an objective or an engine → what it is called here.
KEYS_ELSEWHERE = {
    "learning_rate": "lr",
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "batch_size",
    "gradient_accumulation_steps": "batch_size",
    "train_batch_size": "batch_size",
    "max_grad_norm": "grad_norm",
    "lr_scheduler_type": "schedule",
    "warmup_ratio": "warmup",
    "warmup_steps": "warmup",
    "bf16": "dtype",
    "max_seq_length": "max_length",
    "epsilon": "clip_low",
    "epsilon_high": "clip_high",
    "num_generations": "samples",
    "n": "samples",
    "max_new_tokens": "max_tokens",
    "max_completion_length": "max_tokens",
    "model_name_or_path": "path",
    "name_or_path": "path",
    "dataset": "file",
    "rank": "r",
    "lora_alpha": "alpha",
    "target_modules": "targets",
}
VALUES_ELSEWHERE = {
    "grpo": "GRPO is `objective: clip` with `data: {advantage: group_std}`, as in recipes/grpo.yaml",
    "dapo": "DAPO is `objective: clip` with a larger clip_high, `data: {advantage: group_std}`, reward `overlong`",
    "dr_grpo": "Dr. GRPO is `objective: clip` with `mean_over: constant` and `data: {advantage: group}`",
    "rloo": "RLOO is `objective: clip` with `data: {advantage: rloo}`",
    "cdpo": "cDPO is `objective: dpo` with `label_smoothing`",
    "ppo": "PPO's loss is `objective: clip`; there is no critic, advantages come from `data.advantage`",
    "reinforce": "REINFORCE with importance weights is `objective: ips`",
    "hf": "Hugging Face's generation is the engine `transformers`",
    "huggingface": "Hugging Face's generation is the engine `transformers`",
    "sglang": "a server of SGLang speaks the OpenAI protocol, for answers that are not the policy's: engine `openai`",
}

Path = tuple[Any, ...]


def describe(fault: Any, values: dict[str, Any], model: type[Section]) -> str:
    """Return a fault of pydantic in words."""
    location = path_of(fault)
    path = ".".join(map(str, location))

    if fault["type"] == "extra_forbidden":
        return f"{path}: there is no such key; {hint_for_key(location, values, model)}"
    if fault["type"] == "missing":
        return f"{path}: this key is required"

    value = fault.get("input")
    if fault["type"] == "model_type":
        return f"{path}: {as_section(location, value, model)}"
    if fault["type"] == "string_pattern_mismatch":
        return f"{path}: it is part of file names: letters, digits and ._- only, found {value!r}"

    message = fault["msg"].removeprefix("Value error, ")
    is_hidden = fault["type"] == HIDDEN or isinstance(value, (dict, list)) or value is None
    shown = "" if is_hidden else f", found {value!r}"
    if isinstance(value, str) and value.lower() in VALUES_ELSEWHERE:
        shown = f". {VALUES_ELSEWHERE[value.lower()]}"
    return f"{path}: {message}{shown}" if path else f"{message}{shown}"


def path_of(fault: Any) -> Path:
    """Return the path of the key that a fault is about."""
    return tuple(part for part in fault["loc"] if part not in (*EVAL_TAGS, *REWARD_TAGS))


def is_told(fault: Any, faults: Sequence[Any]) -> bool:
    """Return False for a section that is unknown only because the task is."""
    is_task_wrong = any(path_of(other) == ("task",) for other in faults)
    return not (is_task_wrong and path_of(fault)[0] in plugins.names("tasks"))


def as_section(location: Path, value: Any, model: type[Section]) -> str:
    """Return how a key is written that should be a section, but has a single value."""
    section = section_at(location, model)
    key = str(location[-1])
    if section is None:
        return f"this is a section, found {value!r}"
    if value is False:
        return f"this is a section; to leave it out, write `{key}: null`, found False"

    name, field = next(iter(section.model_fields.items()))
    takes_text = field.annotation is str or str in get_args(field.annotation)
    if isinstance(value, str) and takes_text:
        return f"this is a section; write `{key}: {{{name}: {value}}}`"
    return f"this is a section with the keys {', '.join(list(section.model_fields)[:8])}, …; found {value!r:.60}"


def hint_for_key(location: Path, values: dict[str, Any], model: type[Section]) -> str:
    """Return what would be right in place of an unknown key."""
    key = str(location[-1])
    known = keys_beside(location, model)

    if KEYS_ELSEWHERE.get(key) in known:
        return f"it is called {KEYS_ELSEWHERE[key]!r} here"
    if near := difflib.get_close_matches(key, known, n=1):
        return f"did you mean {near[0]!r}?"
    if len(location) == 1 and key in plugins.names("tasks"):
        return f"this section belongs to task {key}, but the task is {values.get('task')}"

    return f"known keys: {', '.join(known)}"


def keys_beside(location: Path, model: type[Section]) -> list[str]:
    """Return the keys that would be right in place of an unknown one."""
    section = section_at(location[:-1], model)
    return sorted(section.model_fields) if section else []


def section_at(location: Path, model: type[Section]) -> type[Section] | None:
    """Return the section at a path; None if there is none."""
    section: type[Section] | None = model
    for part in location:
        if section is not None and part in section.model_fields:
            section = model_in(section.model_fields[part].annotation)
        # else the part is a key of a mapping, such as a round's number, whose section was found one step before
    return section


def model_in(annotation: Any) -> type[Section] | None:
    """Return the section that an annotation such as `dict[int, Results] | None` contains."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation

    return next(filter(None, map(model_in, get_args(annotation))), None)


# ---------------------------------------------------------------- the config without its wrong keys


def is_single_key(location: Path, model: type[Section]) -> bool:
    """Return whether a path leads to a key with a single value, not to a section or to an item of a list."""
    if not location or not all(isinstance(part, str) for part in location):
        return False
    section = section_at(location[:-1], model)
    field = section.model_fields.get(location[-1]) if section else None
    return section is not None and (field is None or model_in(field.annotation) is None)


def without(values: dict[str, Any], keys: Iterable[Path]) -> dict[str, Any]:
    """Return a config's values without the keys at these paths."""
    result = copy.deepcopy(values)
    for *above, name in keys:
        part: Any = result
        for key in above:
            part = part.get(key) if isinstance(part, dict) else None
        if isinstance(part, dict):
            part.pop(name, None)
    return result
