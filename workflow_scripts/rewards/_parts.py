"""Computing one part of a composed reward for a batch of answers."""

import math
from collections.abc import Sequence
from typing import Any

from workflow_scripts import rewards
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.running import plugins

Value = dict[str, Any]  # {"value": number or None, "reason": why there is none}


class Undecided(Exception):
    """Raised by a reward for an answer that it cannot judge. The answer is left out of training, with this reason."""


def decided(value: float) -> Value:
    return {"value": float(value)}


def undecided(reason: str) -> Value:
    return {"value": None, "reason": reason}


def load_part(name: str, model: str | None, options: dict[str, Any]) -> rewards.Reward:
    """Return the function of a built-in reward with its options, or a function of the user's."""
    if file := rewards.own_file(name):
        try:
            return rewards.load(name)
        except BadInput:
            raise
        except Exception as error:  # of whatever kind: importing the file runs the user's code
            raise BadInput(f"reward {name}: {type(error).__name__}: {error}{rewards.line_in(file, error)}") from error

    module = plugins.load("rewards", name)
    if getattr(module, "NEEDS_MODEL", False) and not model:
        raise BadInput(f"reward {name}: needs a model (config key reward_model, or `model` of the part)")
    if hasattr(module, "OPTIONS"):
        return module.make(model, module.OPTIONS | options)
    return module.make(model)


def values(name: str, function: rewards.Reward, answers: Sequence[dict[str, Any]]) -> list[Value]:
    """Return the value of each answer. BadInput names the record, and file and line of a function of the user's."""
    if not rewards.own_file(name):
        answers = [answer | {"answer": printable(answer["answer"])} for answer in answers]
    batch = getattr(function, "batch", None)
    if batch is not None:
        return batch([(answer["answer"], answer) for answer in answers])

    return [value_of(name, function, answer) for answer in answers]


def value_of(name: str, function: rewards.Reward, answer: dict[str, Any]) -> Value:
    """Return the value of one answer."""
    where = f"reward {name}, record {answer['uid']}"

    try:
        value = function(answer["answer"], references_of(answer), answer)
    except Undecided as error:
        return undecided(str(error))
    except Exception as error:  # of whatever kind: the function may be the user's
        line = rewards.line_in(rewards.own_file(name), error)
        raise BadInput(f"{where}: {type(error).__name__}: {error}{line}") from error

    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadInput(f"{where}: should be a finite number, found {value!r:.60}")

    return decided(value)


def printable(text: str) -> str:
    """Return a text in which lone surrogates, which UTF-8 and tokenizers cannot encode, are written as escapes."""
    return text.encode(errors="backslashreplace").decode()


def references_of(answer: dict[str, Any]) -> list[str]:
    """Return the references of an answer as texts: none, one, or several."""
    reference = answer.get("reference")

    if reference is None:
        return []
    if isinstance(reference, list | tuple):
        return [str(item) for item in reference]
    return [str(reference)]
