"""Rewards of answers with references, one file each. A new reward is a new file here, or a function in a file of yours.

A reward is a function (answer, references, record) → number, where `record` is the answer's whole record; larger is
better. `my_rewards.py:length_penalty` names one in a file of yours. A file here holds `make(model)`, which returns the
function, and, as literal constants at its top level,

    NEEDS_MODEL    True if a model computes it (config key reward_model)
    PACKAGES       the packages that it imports, beyond those of every stage
    PARTS          for a combination in place of `make`: the names of the rewards that it combines
    OPTIONS        its options with their defaults; `make` takes them as a second argument. "" must be given
    FILES          the options that name files
    NEEDS_JUDGE    True if a judge computes it (key `judge` of the part)

A weighted sum of several rewards is a list of parts in the config (`_parts.py`).

Answers are compared by the mean of the parts' z-scores among the answers to one prompt.
"""

import importlib.util
import math
import traceback
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.running import plugins

Reward = Callable[[str, Sequence[str], dict[str, Any]], float]


def parts_of(name: str) -> tuple[str, ...]:
    """Return the rewards that a reward combines; in general only itself."""
    if name not in plugins.names("rewards"):
        return (name,)
    return tuple(plugins.constants("rewards", name).get("PARTS", (name,)))


def roots(name: str | None) -> list[str]:
    """Return the modules that compute a reward, as roots of its code; a user's own file is an input instead."""
    built_in = plugins.names("rewards")
    return [plugins.module_name("rewards", part) for part in parts_of(name or "") if part in built_in]


def own_file(name: str | None) -> str | None:
    """Return the file of a user's own reward, FILE.py:FUNCTION."""
    file, colon, _ = (name or "").rpartition(":")
    return file if colon else None


@cache
def load(name: str, model: str | None = None) -> Reward:
    """Return a reward that is no combination, by its name or as FILE.py:FUNCTION. BadInput tells what is wrong."""
    if own_file(name):
        return _load_own(name)

    module = plugins.load("rewards", name)
    if getattr(module, "NEEDS_MODEL", False) and not model:
        raise BadInput(f"reward {name}: needs a model (config key reward_model)")
    return module.make(model)


def _load_own(name: str) -> Reward:
    file, _, function = name.rpartition(":")

    if not file.endswith(".py"):
        names = ", ".join(plugins.names("rewards"))
        raise BadInput(f"there is no reward {name!r}; choose {names}, or FILE.py:FUNCTION")
    if not Path(file).is_file():
        raise BadInput(f"reward {name}: there is no file {file}")

    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    if not callable(getattr(module, function, None)):
        raise BadInput(f"reward {name}: {file} has no function {function!r}")
    return getattr(module, function)


def combine(parts: Sequence[dict[str, float]]) -> list[float]:
    """Return one reward for each of the answers that are compared with one another.

    A single part is taken as it is. Several are combined by the mean of their z-scores among these answers. BLEUBERI's
    bleu_rm took the spread of a micro-batch; here it is that of a prompt's answers.
    """
    names = list(parts[0]) if parts else []
    if len(names) == 1:
        return [values[names[0]] for values in parts]

    columns = {name: [values[name] for values in parts] for name in names}
    means = {name: fmean(column) for name, column in columns.items()}
    spreads = {name: pstdev(column) or 1.0 for name, column in columns.items()}
    return [fmean((values[name] - means[name]) / spreads[name] for name in names) for values in parts]


def compute_parts(
    name: str, model: str | None, answer: str, references: Sequence[str], record: dict[str, Any]
) -> dict[str, float]:
    """Return the rewards of an answer that a reward combines, by name."""
    return {part: compute(load(part, model), answer, references, record) for part in parts_of(name)}


def compute(reward: Reward, answer: str, references: Sequence[str], record: dict[str, Any]) -> float:
    """Return the reward of an answer. BadInput names the record if the function fails or gives no finite number."""
    try:
        value = reward(answer, references, record)
    except Exception as error:  # of whatever kind: the function may be the user's
        raise BadInput(
            f"reward: record {record['uid']}: {type(error).__name__}: {error}{line_in(file_of(reward), error)}"
        ) from error

    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadInput(f"reward: record {record['uid']}: should be a finite number, found {value!r}")

    return float(value)


def file_of(reward: Reward) -> str | None:
    """Return the file that a function is defined in."""
    return getattr(getattr(reward, "__code__", None), "co_filename", None)


def line_in(file: str | None, error: BaseException) -> str:
    """Return where in a file an exception was raised, as the end of a message; "" if it was elsewhere."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(file or "\0")]
    return f" ({file}, line {frames[-1].lineno}, in {frames[-1].name})" if frames else ""
