"""The prompts of the task `recommend`: beginnings of dialogues, with the items that the seeker looks for."""

import random
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from typing import Any, NotRequired

from workflow_scripts.core.identity import digest
from workflow_scripts.core.records import Message, Prompt
from workflow_scripts.tasks import defaults
from workflow_scripts.tasks.recommend import invented, readers, taught
from workflow_scripts.tasks.recommend.dialogues import canonical, instructed, is_dialog, transcript
from workflow_scripts.tasks.recommend.items import read_items
from workflow_scripts.tasks.recommend.settings import Settings


class DialoguePrompt(Prompt):
    """A prompt of this task. Its `messages` are the dialogue with `recommend.instruction`, as the policy reads it."""

    dialog: list[Message]  # the last utterances of the given dialogue (`recommend.history`)
    mentioned: list[str]  # the titles that the whole dialogue mentions, for the catalogue
    interaction: NotRequired[list[Message]]  # a teacher's continuation that a file has, with its outcome
    rec_success: NotRequired[bool]
    base_turn: NotRequired[int | None]


class Prompts(defaults.Prompts):
    """Made-up dialogues, levels mixed, or those of a file: INSPIRED's, ReDial's, or with dialog and target_items."""

    @cached_property
    def options(self) -> Settings:
        return Settings.model_validate(self.settings)

    def read(self, source: dict[str, Any], split: str, seed: int) -> Iterator[Prompt]:
        if source["count"]:
            yield from self._made_up(source["count"], split, seed)
        else:
            yield from self._from_file(source, split)

    def _made_up(self, counts: dict[str, int], name: str, seed: int) -> list[DialoguePrompt]:
        prompts = []
        for level, count in counts.items():
            for dialog, targets in invented.dialogues(level, name, count, seed):
                prompts.append(self.prompt(dialog, targets, level))

        return random.Random(f"{seed}.{name}").sample(prompts, len(prompts))

    def _dialogues(self, source: dict[str, Any], split: str) -> Iterator[Any]:
        """Stream the dialogues of a source. Those of the pool may have a teacher's continuation already."""
        where = (source["file"], source["split"], source["revision"], source["subset"])
        taught_source = self.options.explore.source if self.options.explore else None
        if taught_source and split == "pool":
            return taught.read_taught(taught_source[0], *where)
        return readers.read_dialogues(*where)

    def _from_file(self, source: dict[str, Any], split: str) -> Iterator[DialoguePrompt]:
        known = None
        if "catalogue" in self.files:
            known = {item["title"] for item in read_items(self.files["catalogue"])}

        for dialogue in islice(self._dialogues(source, split), source["limit"]):
            prompt = self.prompt(dialogue["dialog"], dialogue["target_items"], dialogue["level"])
            prompt["id"] = dialogue["id"]
            prompt["mentioned"] = dialogue["mentioned"]
            if "interaction" in dialogue:
                prompt["interaction"] = dialogue["interaction"]
                prompt["rec_success"] = dialogue["rec_success"]
                prompt["base_turn"] = dialogue["base_turn"]

            unknown = [title for title in dialogue["target_items"] if known is not None and title not in known]
            if unknown:
                prompt["fault"] = f"the target {unknown[0]!r} is not in the catalogue"
            elif dialogue["fault"]:
                prompt["fault"] = dialogue["fault"]
            yield prompt

    def prompt(self, dialog: list[Message], targets: list[str], level: str) -> DialoguePrompt:
        """Return the prompt of a dialogue. Equal dialogues with other targets are other prompts."""
        dialog = dialog[-self.options.history :]
        instruction = self.options.instruction

        identity: dict[str, Any] = {"dialog": dialog, "target_items": targets}
        if instruction:
            identity["instruction"] = instruction

        return {
            "id": digest(identity),
            "question": transcript(dialog),
            "reference": targets,
            "level": level,
            "messages": instructed(dialog, instruction),
            "dialog": dialog,
            "mentioned": [],
        }

    def key(self, prompt: Prompt) -> str:
        return canonical(prompt["dialog"], prompt["reference"])  # type: ignore[typeddict-item]

    def fault(self, prompt: Prompt) -> str | None:
        for field in ("dialog", "messages"):
            if not is_dialog(prompt.get(field)):
                return f"no {field}"
        return super().fault(prompt)
