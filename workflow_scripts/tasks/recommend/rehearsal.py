"""Scripted dialogues of the task `recommend`, and what its teacher and its seeker say in a rehearsal."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from workflow_scripts.core.pickles import read_pickle
from workflow_scripts.core.records import Message, Prompt, read_records
from workflow_scripts.tasks import defaults
from workflow_scripts.tasks.defaults import ScriptedAnswer
from workflow_scripts.tasks.recommend.players import SEEKER

DIALOGUES = 12  # that a teacher explores, and that the rounds learn on
QUESTION = "Which genre do you like?"
SEEKER_ANSWERS = "I do not mind, as long as it is good."


class Rehearsal(defaults.Rehearsal):
    """Lists with and without a target, at once and after a question."""

    @classmethod
    def smaller(cls, section: dict[str, Any]) -> dict[str, Any]:
        changes: dict[str, Any] = {"end": (section.get("start") or 0) + DIALOGUES, "resamples": 1}
        if explore := section.get("explore"):
            changes["explore"] = {"end": (explore.get("start") or 0) + DIALOGUES}
        return changes

    @classmethod
    def models(cls, section: dict[str, Any]) -> dict[str, tuple[str, ...]]:
        embedder = (section.get("grounding") or {}).get("embedder", "tfidf")
        is_encoder = embedder not in (None, "tfidf", "openai")
        return {"encoder": ("grounding", "embedder")} if is_encoder else {}

    @cached_property
    def titles(self) -> list[str]:
        """The titles in the catalogue."""
        return [item["title"] for item in read_pickle(self.files["catalogue"])["items"]]

    @cached_property
    def pool(self) -> list[Any]:
        """The prompts that a teacher explores."""
        return list(read_records(self.files["pool"]))

    def answers(self, prompt: Prompt) -> list[ScriptedAnswer]:
        targets = prompt["reference"]
        right = self.list_of([targets[0], *self.others(targets)])
        wrong = self.list_of(self.others(targets))
        return [ScriptedAnswer([right], True), ScriptedAnswer([wrong], False), ScriptedAnswer([QUESTION, right], True)]

    def reply(self, messages: Sequence[Message]) -> str:
        """Return the seeker's next words, or the teacher's: a list that has a target in two dialogues of three."""
        last = messages[-1]["content"]
        if last.startswith(SEEKER.split("{", 1)[0]):
            return SEEKER_ANSWERS

        number, prompt = next(
            (
                (i, prompt)
                for i, prompt in enumerate(self.pool)
                if prompt["messages"] == list(messages)[: len(prompt["messages"])]
            ),
            (0, self.pool[0]),
        )
        targets = prompt["reference"]
        hits = [] if number % 3 == 2 else targets[:1]
        return "You may like:\n" + self.list_of([*hits, *self.others(targets)])

    def others(self, targets: Sequence[str]) -> list[str]:
        """Return titles that are no targets."""
        return [title for title in self.titles if title not in targets]

    def list_of(self, titles: Sequence[str]) -> str:
        """Return titles as a numbered list of the length that the task asks for."""
        length = self.settings.get("list_length", 10)
        return "\n".join(f"{place}. {title}" for place, title in enumerate(titles[:length], 1))
