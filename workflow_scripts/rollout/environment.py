"""The environment of a rollout: what answers the policy.

An environment may reply to a stop string within an answer (a program's output), or to a finished turn (another speaker
in a dialogue), or never. `Environment` itself never replies; tasks override what they need.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from workflow_scripts.core.records import Message, Prompt


@dataclass
class Conversation:
    """One answer in the making."""

    uid: str
    prompt: Prompt
    text: str = ""  # the answer so far, with what the environment wrote into it
    turns: list[Message] = field(default_factory=list)  # the turns since the prompt
    finish: str = "turns"  # how the last turn ended: eos, stop, length; turns: no turns are left
    rejected: str | None = None  # why the conversation cannot be used
    fault: str | None = None  # what is wrong with the form of a finished conversation
    draws: int = 1  # how often it was drawn until its form was right
    tokens: list[int] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)  # 1 = sampled by the policy
    logps: list[float] = field(default_factory=list)  # of the sampled tokens


@dataclass
class Turn:
    """An environment's reply to a conversation."""

    text: str | None = None  # None ends the conversation
    rejected: str | None = None  # why the conversation cannot be used


class Environment:
    """An environment that never replies: each answer is one turn."""

    stop: tuple[str, ...] = ()  # strings after which the policy waits for the environment
    replies_to: Literal["stop", "eos"] = "stop"  # to a stop string within an answer, or to a finished turn
    has_last_word: bool = True  # whether it still replies after the policy's last turn
    resamples: int = 0  # how often a conversation with a fault is drawn again at most
    # Threads that each call `reply` with one conversation. None: one thread calls it with all conversations that wait.
    threads: int | None = None

    def reply(self, conversations: Sequence[Conversation]) -> list[Turn]:
        """Return a reply to each conversation, in order. It is called from a thread, while the policy goes on."""
        return [Turn() for _ in conversations]

    def fault(self, conversation: Conversation) -> str | None:
        """Return what is wrong with the form of a finished conversation, or None."""
        return None

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Release what the environment holds."""
