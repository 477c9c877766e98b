"""What the config says about rewards, and what can be wrong with it before anything runs.

A function of the user's is looked up in its file without running the file.
"""

import ast
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from workflow_scripts.config.sections.rewards import TRAINED, Part
from workflow_scripts.core.running import plugins

if TYPE_CHECKING:
    from workflow_scripts.config.load import Config


def needs_model(reward: str | None) -> bool:
    """Return whether a model computes this reward."""
    return bool(reward in plugins.names("rewards") and plugins.constants("rewards", reward).get("NEEDS_MODEL"))  # type: ignore


def parts_of(cfg: "Config") -> list[Part]:
    """Return the parts of a composed reward, each with the model that computes it; none if it is not composed.

    One reward alone is a part if the task does not leave the choice of its own reward.
    """
    if cfg.reward is None or cfg.chosen_reward:
        return []

    parts = [Part(reward=cfg.reward)] if isinstance(cfg.reward, str) else cfg.reward
    resolved = []
    for part in parts:
        model = part.model or (cfg.reward_model if needs_model(part.reward) else None)
        if model == TRAINED:
            model = f"runs/{cfg.name}/reward_model/model"
        resolved.append(part.model_copy(update={"model": model}))
    return resolved


def is_trained_here(cfg: "Config", part: Part) -> bool:
    """Return whether the run trains the model of a part."""
    return part.model == f"runs/{cfg.name}/reward_model/model"


def faults_of_rewards(cfg: "Config") -> Iterator[str]:
    """Yield what is wrong with the rewards, and with the judge."""
    section = cfg.task_section

    for key, name in {"reward": cfg.chosen_reward, **section.rewards()}.items():
        if name and needs_model(name) and not cfg.reward_model:
            yield f"reward_model: {key} {name} is computed by a model; give its folder or its name on the hub"
        if name and ".py:" in name:
            yield from faults_of_function(key, name)

    constants = plugins.constants("rewards", cfg.reward) if cfg.reward in plugins.names("rewards") else {}
    if constants.get("NEEDS_JUDGE"):
        yield f"reward {cfg.reward}: list it as a part, as in `reward: [{{reward: {cfg.reward}, judge: {{…}}}}]`"
    elif not cfg.chosen_reward and "PARTS" in constants:
        yield f"reward {cfg.reward}: list its parts {' and '.join(constants['PARTS'])} instead"
    else:
        yield from _faults_of_parts(cfg)

    if cfg.judge and cfg.judge.rubric and not Path(cfg.judge.rubric).is_file():
        yield f"judge.rubric: there is no file {cfg.judge.rubric}"


def _faults_of_parts(cfg: "Config") -> Iterator[str]:
    parts = parts_of(cfg)
    columns = [part.column for part in parts]

    for number, part in enumerate(parts):
        key = f"reward.{number}"
        if columns.count(part.column) > 1:
            yield f"{key}: there are several parts {part.column!r}; give each a `name` of its own"
        if needs_model(part.reward) and not part.model:
            yield f"{key}: {part.reward} is computed by a model; give `model`, or reward_model for all parts"
        if is_trained_here(cfg, part) and not cfg.train_reward_model:
            yield f"{key}.model: {TRAINED} needs the section `train_reward_model`, which says how it is trained"
        if ".py:" in part.reward:
            yield from faults_of_function(key, part.reward)
        for file in part.files:
            if not Path(file).is_file() and ".py:" not in part.reward:
                yield f"{key}: there is no file {file}"

    if cfg.train_reward_model and not any(is_trained_here(cfg, part) for part in parts):
        yield f"train_reward_model: no part of `reward` uses it; give a part with `model: {TRAINED}`"
    if parts and cfg.data.advantage == "sign" and not _is_zero_or_one(parts):
        yield (
            "data.advantage sign: it compares rewards from 0 to 1 with one half, but a weighted sum has another range; "
            "use group, group_std or raw"
        )


def _is_zero_or_one(parts: list[Part]) -> bool:
    """Return whether a composed reward is one part of weight 1, beside metrics."""
    return [part.weight for part in parts if part.weight] == [1.0]


def faults_of_function(key: str, name: str) -> Iterator[str]:
    """Yield why FILE.py:FUNCTION cannot be called: no file, no Python, or no such function."""
    file, _, function = name.rpartition(":")
    path = Path(file)

    if not path.is_file():
        yield f"{key}: there is no file {file}"
        return
    try:
        tree = ast.parse(path.read_text(), file)
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        yield f"{key}: {file}{line}: is no Python: {error.args[0]}"
        return

    defined = names_in(tree)
    if function not in defined and "*" not in defined:
        near = difflib.get_close_matches(function, defined, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(sorted(defined)) or 'none'}"
        yield f"{key}: {file} has no function {function!r}; {hint}"


def names_in(tree: ast.Module) -> set[str]:
    """Return the names that a file binds at its top level; "*" if it imports all names of another."""
    names = set()

    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    for node in tree.body:
        for inner in [node, *ast.walk(node)] if isinstance(node, ast.If | ast.Try) else [node]:
            if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(inner.name)
            if isinstance(inner, ast.Assign | ast.AnnAssign):
                targets = inner.targets if isinstance(inner, ast.Assign) else [inner.target]
                names |= {target.id for target in targets if isinstance(target, ast.Name)}

    return names
