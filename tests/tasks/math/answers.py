"""Graded answers of the task `math`, as the stage grade leaves them."""

from typing import Any

from workflow_scripts.tasks.math.conversation import TRIGGERS


def graded(
    question: str, path: str, right: bool, trigger: str = "auto", number: int = 0, text: str | None = None
) -> dict[str, Any]:
    """Return a graded answer. Its text differs by number unless `text` is given."""
    if text is None:
        program = " ```python\nprint(1)\n```" if path == "pot" else ""
        text = f"{path} {right} {number}{program}"

    return {
        "id": question,
        "question": question,
        "reference": "1",
        "level": "t",
        "uid": f"{question}.{trigger}.{number}",
        "trigger": trigger,
        "prompt_text": f"User:{question}{TRIGGERS.get(trigger, '')}",
        "answer": text,
        "prompt_tokens": [1],
        "tokens": [2, 3],
        "mask": [1, 1],
        "finish": "eos",
        "sampled_logps": [],
        "policy": "p",
        "reward": float(right),
        "path": path,
        "prediction": "1",
        "any_right": right,
    }
