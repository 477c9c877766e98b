"""The default part of a task for rehearsals: scripted answers, and a smaller config section."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from workflow_scripts.core.records import Message, Prompt


@dataclass
class ScriptedAnswer:
    """An answer that the stand-in gives in a rehearsal."""

    turns: list[str]  # the environment speaks between them
    is_right: bool | None  # whether grading should find it right; None if that cannot be said


class Rehearsal:
    """The part of a task that a rehearsal uses."""

    WRONG = "I do not know."

    def __init__(self, settings: Any, files: Any):
        self.settings = settings
        self.files = files

    @classmethod
    def smaller(cls, section: dict[str, Any]) -> dict[str, Any]:
        """Return changes to the task's config section that make a round small."""
        return {}

    @classmethod
    def models(cls, section: dict[str, Any]) -> dict[str, tuple[str, ...]]:
        """Return the keys of the task's section that name a model beside the policy, by its kind: encoder or reward."""
        return {}

    def answers(self, prompt: Prompt) -> list[ScriptedAnswer]:
        """Return answers to a prompt, right and wrong ones: by default the reference, and words without an answer."""
        return [ScriptedAnswer([first_text(prompt["reference"])], True), ScriptedAnswer([self.WRONG], False)]

    def reply(self, messages: Sequence[Message]) -> str:
        """Return what an endpoint says in a conversation, in place of a teacher or a simulated user."""
        return self.WRONG


def first_text(reference: Any) -> str:
    """Return a reference as text: the first one of several."""
    while isinstance(reference, list | tuple) and reference:
        reference = reference[0]
    return str(reference)
