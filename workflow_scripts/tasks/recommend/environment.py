"""The environment of the task `recommend`: the seeker, who answers each turn of the recommender."""

from collections.abc import Sequence

from workflow_scripts.core.records import Message
from workflow_scripts.core.running.ledger import Ledger
from workflow_scripts.rollout.environment import Conversation, Environment, Turn
from workflow_scripts.tasks.recommend import players
from workflow_scripts.tasks.recommend.items import Catalogue, list_numbers
from workflow_scripts.tasks.recommend.outcomes import is_hit, ranks, utterances
from workflow_scripts.tasks.recommend.settings import Settings


class SeekerEnvironment(Environment):
    """A seeker who answers until a target is hit.

    Rollouts (version auto) may end at their first recommendation, and their form is checked. Evaluation and the
    teacher's dialogues always go on until a hit.
    """

    replies_to = "eos"
    has_last_word = False

    def __init__(self, settings: Settings, catalogue: Catalogue, version: str, ledger: Ledger | None = None):
        """`ledger` keeps the requests of a seeker behind an endpoint."""
        self.settings = settings
        self.catalogue = catalogue
        self.is_rollout = version == "auto"
        self.resamples = settings.resamples if self.is_rollout else 0
        self.purpose = f"seeker ({version})"
        self.ledger = ledger
        self.seeker: players.Seeker | None = None  # appears when it is first needed, because it locks its ledger

    def reply(self, conversations: Sequence[Conversation]) -> list[Turn]:
        self.catalogue.prepare([conversation.turns[-1]["content"] for conversation in conversations])

        replies = [Turn() for _ in conversations]
        waiting = [number for number, conversation in enumerate(conversations) if not self.ends(conversation)]
        if not waiting:
            return replies

        if self.seeker is None:
            self.seeker = players.make_seeker(self.settings.seeker, self.catalogue, self.ledger, self.purpose)
        dialogues = [(targets_of(conversations[i]), dialog_of(conversations[i])) for i in waiting]
        for i, answer in zip(waiting, self.seeker.answer(dialogues)):
            if answer.rejected:
                replies[i] = Turn(rejected=f"the seeker: {answer.rejected}")
            else:
                replies[i] = Turn(answer.text)

        return replies

    def ends(self, conversation: Conversation) -> bool:
        """Return whether a dialogue ends with its last utterance: at a hit, or at a rollout's first list (OSR)."""
        text = conversation.turns[-1]["content"]
        if not self.catalogue.recommends(text):
            return False
        if self.settings.hardcore and self.is_rollout:
            return True
        return is_hit(self.catalogue, ranks(self.catalogue, text, targets_of(conversation)))

    def fault(self, conversation: Conversation) -> str | None:
        """Return what is wrong with the lists of a rollout, or None; nothing else of its form is checked."""
        if self.settings.off_formatcheck or not self.is_rollout:
            return None

        length = self.settings.list_length
        lists = [text for text in utterances(conversation.turns) if self.catalogue.recommends(text)]
        if any(list_numbers(text) != list(range(1, length + 1)) for text in lists):
            return f"a list that is not numbered from 1 to {length}"
        if self.settings.rec_format_check and not lists:
            return "nothing is recommended"

        return None

    def close(self) -> None:
        self.catalogue.close()
        if self.seeker:
            self.seeker.close()


def targets_of(conversation: Conversation) -> list[str]:
    """Return the titles of the items that the seeker looks for."""
    return conversation.prompt["reference"]


def dialog_of(conversation: Conversation) -> list[Message]:
    """Return the whole dialogue: what the prompt gives, and the turns since then."""
    return conversation.prompt["dialog"] + conversation.turns  # type: ignore[typeddict-item]
