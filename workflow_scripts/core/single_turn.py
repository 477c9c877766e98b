"""The conversation of tasks where a question has one answer and the environment says nothing."""

from collections.abc import Callable

from workflow_scripts.core.records import BadInput

STOP = ()  # strings after which the policy waits for the environment


def requests(question: str, version: str) -> dict[str, str]:
    if version == "trigger":
        raise BadInput("this task asks in one way alone: set generate.trigger to null")
    return {"auto": question}


def reply(text: str, run: Callable[[str], dict]) -> None:
    """The environment says nothing."""


def segments(text: str) -> list[tuple[str, bool]]:
    """All of an answer is the policy's."""
    return [(text, True)]
