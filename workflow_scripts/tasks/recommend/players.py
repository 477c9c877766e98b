"""The speakers of a dialogue: the seeker, who knows the target items, and the teacher, who does not.

Each of them is a script or a model. A dialogue is a list of messages: `user` is the seeker, `assistant` the
recommender. The scripts know items by their attributes, so they need a catalogue with attributes.
"""

import random
import re
from collections.abc import Sequence
from typing import Any, Protocol

from workflow_scripts import engines
from workflow_scripts.core.identity import digest, normalise
from workflow_scripts.core.records import Message
from workflow_scripts.core.running.ledger import Ledger
from workflow_scripts.engines import Chat, Reply, TextEngine
from workflow_scripts.tasks.recommend.dialogues import transcript
from workflow_scripts.tasks.recommend.items import Catalogue, as_list
from workflow_scripts.tasks.recommend.settings import Player

SEEKER = """You are a seeker who talks with a recommender. You would like {titles}, but never say a title yourself.
If the recommender recommends one of these, accept it. If it recommends other items alone, refuse them without an \
explanation. If it asks what you like, answer from what you know of {titles}; say nothing about it unless asked.

{dialogue}

Write the seeker's next utterance, and nothing else."""

Dialogue = tuple[list[str], list[Message]]  # the targets, and what was said so far


# ---------------------------------------------------------------- the seeker


class Seeker(Protocol):
    """Interface of the seeker, who looks for items and answers the recommender."""

    def answer(self, dialogues: Sequence[Dialogue]) -> list[Reply]:
        """Return the seeker's next utterance in each dialogue; `rejected` says why one cannot be used."""
        ...

    def close(self) -> None: ...


class ScriptedSeeker:
    """Refuses every recommendation, and tells the first target's value of each attribute that it is asked about."""

    def __init__(self, catalogue: Catalogue):
        self.catalogue = catalogue

    def answer(self, dialogues: Sequence[Dialogue]) -> list[Reply]:
        return [Reply(self.line(targets, messages[-1]["content"]), "eos", None, 0) for targets, messages in dialogues]

    def close(self) -> None:
        """Release nothing: a script holds nothing."""

    def line(self, targets: list[str], utterance: str) -> str:
        """Return the answer to an utterance of the recommender."""
        if self.catalogue.recommends(utterance):
            return "No, not these. Something else, please."

        attributes = self.catalogue.items[self.catalogue.number(targets[0])]["attributes"]
        answers = [f"{value} ({name})" for name, value in attributes.items() if _contains_word(utterance, name)]
        return f"I like {', '.join(answers)}." if answers else "I do not mind."


class ModelSeeker:
    """A model behind an endpoint that is told to do the same. An answer that gives a title away is rejected."""

    def __init__(self, player: Player, ledger: Ledger, purpose: str):
        self.player = player
        self.engine = remote_engine(player, ledger, purpose)

    def answer(self, dialogues: Sequence[Dialogue]) -> list[Reply]:
        chats = []
        for targets, messages in dialogues:
            request = SEEKER.format(titles=" or ".join(targets), dialogue=transcript(messages))
            seed = int(digest([targets, messages]), 16) % 2**31  # the range that servers accept
            chats.append(Chat([{"role": "user", "content": request}], seed, self.player.max_tokens))

        replies = self.engine.generate(chats)
        for reply, (targets, _) in zip(replies, dialogues):
            reply.text = reply.text.strip().removeprefix("Seeker:").strip()
            if not reply.rejected and any(mentions(reply.text, title) for title in targets):
                reply.rejected = "gave a target's title away"

        return replies

    def close(self) -> None:
        """Let another process work on the ledger."""
        self.engine.close()


def make_seeker(player: Player, catalogue: Catalogue, ledger: Ledger | None, purpose: str) -> Seeker:
    """Return the seeker that `recommend.seeker` describes. One behind an endpoint needs a ledger."""
    if player.engine == "scripted":
        return ScriptedSeeker(catalogue)
    assert ledger is not None
    return ModelSeeker(player, ledger, purpose)


def mentions(text: str, title: str) -> bool:
    """Return whether a text has a title, with its year or without. A title of one word needs its capitals ("Up")."""
    bare = re.sub(r"\s*\(\d{4}\)$", "", normalise(title))
    text = normalise(text)

    if " " in bare:
        bare = bare.casefold()
        text = text.casefold()

    return re.search(rf"(?<!\w){re.escape(bare)}(?!\w)", text) is not None


# ---------------------------------------------------------------- the teacher


class ScriptedTeacher:
    """Recommends items that fit what the seeker said, or asks about what it did not say; an engine that speaks text.

    It is eager: mostly it recommends at once, and goes through the items that fit until one is accepted. What it draws
    follows from the seed of each chat.
    """

    ASKS = 0.35  # share of the turns in which it asks, while something is unknown and nothing was recommended

    def __init__(self, catalogue: Catalogue, length: int):
        self.catalogue = catalogue
        self.length = length
        self.version: dict[str, Any] = {"engine": "scripted", "length": length, "asks": self.ASKS}
        self.values: dict[str, list[str]] = {}  # of all items, by attribute

        for name in dict.fromkeys(name for item in catalogue.items for name in item["attributes"]):
            self.values[name] = sorted(
                {item["attributes"][name] for item in catalogue.items if name in item["attributes"]}
            )

    def generate(self, chats: Sequence[Chat]) -> list[Reply]:
        return [Reply(self.line(chat.messages, random.Random(chat.seed)), "eos", None, 0) for chat in chats]

    def close(self) -> None:
        """Release nothing: a script holds nothing."""

    def line(self, messages: Sequence[Message], rng: random.Random) -> str:
        """Return the teacher's next utterance."""
        by_seeker = " ".join(message["content"] for message in messages if message["role"] == "user")
        by_teacher = " ".join(message["content"] for message in messages if message["role"] == "assistant")

        known = self._known_values(by_seeker)
        unknown = [name for name in self.values if name not in known]
        if unknown and not self.catalogue.recommends(by_teacher) and rng.random() < self.ASKS:
            return f"What {rng.choice(unknown)} do you like?"

        mentioned = set(self.catalogue.mentioned(by_teacher))
        numbers = [number for number in range(len(self.catalogue.items)) if number not in mentioned]
        rng.shuffle(numbers)
        numbers.sort(key=lambda number: -self._fit(number, known))  # stable, so ties stay shuffled
        return "You may like:\n" + as_list(self.catalogue, numbers[: self.length])

    def _known_values(self, text: str) -> dict[str, str]:
        """Return the values of attributes that the seeker mentioned."""
        known = {}
        for name, values in self.values.items():
            for value in values:
                if _contains_word(text, value):
                    known[name] = value
        return known

    def _fit(self, number: int, known: dict[str, str]) -> int:
        """Return how many of the known values an item has."""
        attributes = self.catalogue.items[number]["attributes"]
        return sum(attributes.get(name) == value for name, value in known.items())


def make_teacher(player: Player, catalogue: Catalogue, length: int, ledger: Ledger | None, purpose: str) -> TextEngine:
    """Return the engine that `recommend.explore.teacher` describes. One behind an endpoint needs a ledger."""
    if player.engine == "scripted":
        return ScriptedTeacher(catalogue, length)
    assert ledger is not None
    return remote_engine(player, ledger, purpose)


def remote_engine(player: Player, ledger: Ledger, purpose: str) -> TextEngine:
    """Return the engine of a player behind an endpoint."""
    settings = player.model_dump(mode="json")
    return engines.load(
        "openai",
        settings=settings["openai"],
        sampling={"temperature": settings["temperature"], "top_p": settings["top_p"]},
        stop=(),
        ledger=ledger,
        purpose=purpose,
    )


def _contains_word(text: str, word: str) -> bool:
    return re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) is not None
