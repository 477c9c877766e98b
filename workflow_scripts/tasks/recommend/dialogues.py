"""Dialogues as lists of messages: `user` is the seeker, `assistant` the recommender."""

import json
from collections.abc import Sequence
from typing import Any

from workflow_scripts.core.records import Message

SPEAKERS = {"user": "Seeker", "assistant": "Recommender"}


def transcript(dialog: Sequence[Message]) -> str:
    """Return a dialogue as text, one line per utterance."""
    return "\n".join(f"{SPEAKERS[message['role']]}: {message['content']}" for message in dialog)


def instructed(dialog: list[Message], instruction: str | None) -> list[Message]:
    """Return the messages of a dialogue with the instruction, beginning with the user, as templates expect it.

    The instruction stands before the first words, since not every template has a place for a system message.
    """
    if not dialog or (not instruction and dialog[0]["role"] == "user"):
        return dialog
    if dialog[0]["role"] != "user":
        return [{"role": "user", "content": instruction or "Hello."}, *dialog]
    return [{"role": "user", "content": f"{instruction}\n\n{dialog[0]['content']}"}, *dialog[1:]]


def canonical(dialog: Sequence[Message], targets: list[str]) -> str:
    """Return the text by which prompts are compared and ordered: the dialogue and its targets as JSON."""
    messages = [{"role": message["role"], "content": message["content"]} for message in dialog]
    return json.dumps({"dialog": messages, "target_items": targets}, ensure_ascii=False)


def is_dialog(value: Any) -> bool:
    """Return whether a value is a list of messages by the seeker and the recommender, with at least one message."""
    if not isinstance(value, list) or not value:
        return False

    return all(
        isinstance(message, dict) and message.get("role") in SPEAKERS and isinstance(message.get("content"), str)
        for message in value
    )
