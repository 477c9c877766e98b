"""Scripted answers of the task `reference`: a reference, its first half, and other words."""

from typing import Any

from workflow_scripts.core.records import Prompt
from workflow_scripts.tasks import defaults
from workflow_scripts.tasks.defaults import ScriptedAnswer

SELECTED = 8  # prompts that are selected from a pool


class Rehearsal(defaults.Rehearsal):
    """Answers that resemble the references more and less, so that a group has variance."""

    @classmethod
    def smaller(cls, section: dict[str, Any]) -> dict[str, Any]:
        selection = section.get("selection")
        return {"selection": {"num_examples": min(SELECTED, selection["num_examples"])}} if selection else {}

    def answers(self, prompt: Prompt) -> list[ScriptedAnswer]:
        reference = prompt["reference"][0]
        words = reference.split()
        half = " ".join(words[: max(1, len(words) // 2)])
        return [ScriptedAnswer([reference], True), ScriptedAnswer([half], None), ScriptedAnswer([self.WRONG], None)]
