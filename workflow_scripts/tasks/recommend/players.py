"""Who talks: the seeker, who knows the target items, and the teacher, who does not; by a script or a model.

A dialogue is a list of messages: `user` is the seeker, `assistant` the recommender. The scripts know items by their
attributes, so they need a catalogue that has some.
"""

import random
import re
from collections.abc import Sequence

from workflow_scripts import engines
from workflow_scripts.core.running.ledger import Ledger
from workflow_scripts.core.identity import digest, normalise
from workflow_scripts.tasks.recommend.items import Catalogue
from workflow_scripts.engines import Chat, Reply

SEEKER = """You are a seeker who talks with a recommender. You would like {titles}, but never say a title yourself.
If the recommender recommends one of these, accept it. If it recommends other items alone, refuse them without an \
explanation. If it asks what you like, answer from what you know of {titles}; say nothing about it unless asked.

{dialogue}

Write the seeker's next utterance, and nothing else."""
SPEAKERS = {"user": "Seeker", "assistant": "Recommender"}


# ---------------------------------------------------------------- the seeker


class ScriptedSeeker:
    """Refuses what is not wanted, and says of each attribute that it is asked for what the first target has."""

    def __init__(self, catalogue: Catalogue):
        self.catalogue = catalogue

    def answer(self, dialogues: Sequence[tuple[list[str], list[dict]]]) -> list[Reply]:
        """The seeker's next utterance in each dialogue (targets, messages); `rejected` says why one cannot be used."""
        return [Reply(self.line(targets, messages[-1]["content"]), "eos", None, 0) for targets, messages in dialogues]

    def close(self) -> None:
        """Nothing is held."""

    def line(self, targets: list[str], heard: str) -> str:
        if self.catalogue.recommends(heard):
            return "No, not these. Something else, please."
        attributes = self.catalogue.items[self.catalogue.place(targets[0])]["attributes"]
        asked = [f"{value} ({name})" for name, value in attributes.items() if _word(name, heard)]
        return f"I like {', '.join(asked)}." if asked else "I do not mind."


class ModelSeeker:
    """The same by instruction, from an endpoint; an answer that gives a title away is rejected."""

    def __init__(self, player: dict, ledger: Ledger, purpose: str):
        self.player = player
        self.engine = endpoint(player, player, ledger, purpose)

    def answer(self, dialogues: Sequence[tuple[list[str], list[dict]]]) -> list[Reply]:
        chats = []
        for targets, messages in dialogues:
            told = SEEKER.format(titles=" or ".join(targets), dialogue=transcript(messages))
            seed = int(digest([targets, messages]), 16) % 2**31
            chats.append(Chat([{"role": "user", "content": told}], seed, self.player["max_tokens"]))
        replies = self.engine.generate(chats)
        for reply, (targets, _) in zip(replies, dialogues):
            reply.text = reply.text.strip().removeprefix("Seeker:").strip()
            if not reply.rejected and any(named(title, reply.text) for title in targets):
                reply.rejected = "gave a target's title away"
        return replies

    def close(self) -> None:
        """Let another process work on the ledger."""
        self.engine.close()


def seeker(player: dict, catalogue: Catalogue, ledger: Ledger | None, purpose: str):
    """The seeker that the config's `recommend.seeker` names."""
    return ScriptedSeeker(catalogue) if player["engine"] == "scripted" else ModelSeeker(player, ledger, purpose)


def named(title: str, text: str) -> bool:
    """Whether a text has the title, with its year or without; a title of one word by its capitals too ("Up")."""
    bare, text = re.sub(r"\s*\(\d{4}\)$", "", normalise(title)), normalise(text)
    if " " in bare:
        bare, text = bare.casefold(), text.casefold()
    return re.search(rf"(?<!\w){re.escape(bare)}(?!\w)", text) is not None


def transcript(messages: list[dict]) -> str:
    return "\n".join(f"{SPEAKERS[message['role']]}: {message['content']}" for message in messages)


def endpoint(player: dict, sampling: dict, ledger: Ledger, purpose: str):
    return engines.load("openai", settings=player["openai"], sampling=sampling, stop=(), ledger=ledger, purpose=purpose)


# ---------------------------------------------------------------- the teacher


class ScriptedTeacher:
    """Recommends items that fit what the seeker said, or asks for what it did not say.

    It is eager: it mostly recommends at once, and goes through the items that fit until one is accepted. An engine:
    one Reply per Chat, from the chat's own seed.
    """

    ASKS = 0.35  # share of the turns in which it asks, while something is unknown and nothing was refused

    def __init__(self, catalogue: Catalogue, length: int):
        self.catalogue, self.length = catalogue, length
        self.version = {"engine": "scripted", "length": length, "asks": self.ASKS}
        names = dict.fromkeys(name for one in catalogue.items for name in one["attributes"])
        self.values = {
            name: sorted({one["attributes"][name] for one in catalogue.items if name in one["attributes"]})
            for name in names
        }

    def generate(self, chats: Sequence[Chat]) -> list[Reply]:
        return [Reply(self.line(chat.messages, random.Random(chat.seed)), "eos", None, 0) for chat in chats]

    def close(self) -> None:
        """Nothing is held."""

    def line(self, messages: list[dict], rng: random.Random) -> str:
        heard = " ".join(message["content"] for message in messages if message["role"] == "user")
        spoken = " ".join(message["content"] for message in messages if message["role"] == "assistant")
        known = {name: value for name, values in self.values.items() for value in values if _word(value, heard)}
        unknown = [name for name in self.values if name not in known]
        if unknown and not self.catalogue.recommends(spoken) and rng.random() < self.ASKS:
            return f"What {rng.choice(unknown)} do you like?"
        named = set(self.catalogue.named(spoken))
        items = [number for number in range(len(self.catalogue.items)) if number not in named]
        rng.shuffle(items)
        fits = [sum(self.catalogue.items[i]["attributes"].get(name) == known[name] for name in known) for i in items]
        best = [i for _, i in sorted(zip(fits, items), key=lambda pair: -pair[0])][: self.length]
        lines = [f"{place}. {self.catalogue.items[i]['title']}" for place, i in enumerate(best, 1)]
        return "You may like:\n" + "\n".join(lines)


def teacher(player: dict, sampling: dict, catalogue: Catalogue, length: int, ledger: Ledger, purpose: str):
    """The engine that `recommend.explore.teacher` names."""
    if player["engine"] == "scripted":
        return ScriptedTeacher(catalogue, length)
    return endpoint(player, sampling, ledger, purpose)


def _word(word: str, text: str) -> bool:
    return re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) is not None
