"""The rollout loop: the policy speaks, the environment replies, until the answer is complete or no turns are left."""

from collections.abc import Sequence
from typing import Any, Protocol

from workflow_scripts.core.chat import continuation
from workflow_scripts.core.identity import digest
from workflow_scripts.core.records import Message, Piece
from workflow_scripts.core.templates import as_messages
from workflow_scripts.core.tokens import encode_pieces
from workflow_scripts.engines import Chat, Request, TextEngine, TokenEngine
from workflow_scripts.rollout.environment import Conversation, Environment


class Speaker(Protocol):
    """The policy's side of a rollout."""

    def speak(self, conversations: Sequence[Conversation], turn: int) -> None:
        """Add the policy's next turn to each conversation."""
        ...

    def hear(self, conversation: Conversation, text: str) -> bool:
        """Add what the environment said to a conversation; return whether it fits into the context."""
        ...

    def room(self, conversation: Conversation) -> int:
        """Return how many tokens the policy may still write in a conversation."""
        ...


def converse(conversations: Sequence[Conversation], speaker: Speaker, environment: Environment, turns: int) -> None:
    """Play conversations to their ends, in place. One that fills the policy's context ends with `length`."""
    active = []
    for conversation in conversations:
        if speaker.room(conversation) > 0:
            active.append(conversation)
        else:
            conversation.rejected = "the prompt is longer than the model's context"

    for turn in range(turns):
        if not active:
            break

        speaker.speak(active, turn)
        waiting = [
            conversation
            for conversation in active
            if not conversation.rejected
            and conversation.finish == environment.replies_to
            and speaker.room(conversation) > 0
        ]
        active = []
        if turn + 1 == turns and not environment.has_last_word:
            break

        for conversation, reply in zip(waiting, environment.reply(waiting)):
            conversation.rejected = reply.rejected
            if reply.text is None or reply.rejected:
                continue
            if speaker.hear(conversation, reply.text) and speaker.room(conversation) > 0:
                conversation.finish = "turns"
                active.append(conversation)
            else:
                conversation.finish = "length"


class TokenSpeaker:
    """A policy that continues tokens. Each turn draws from a seed of its own, so batches do not matter."""

    def __init__(
        self,
        engine: TokenEngine,
        prompt_tokens: dict[str, list[int]],
        environment: Environment,
        template: str,
        max_tokens: int,
        seed: str,
        reply_tokens: int | None = None,
    ):
        """`prompt_tokens` holds the tokens of each conversation's prompt, by uid.

        What the environment says is cut to `reply_tokens`; None: it is never cut.
        """
        self.engine = engine
        self.reply_tokens = reply_tokens
        self.prompt_tokens = prompt_tokens
        self.template = template
        self.max_tokens = max_tokens
        self.seed = seed
        self.speaks_in_turns = environment.replies_to == "eos"

    def speak(self, conversations: Sequence[Conversation], turn: int) -> None:
        requests = []
        for conversation in conversations:
            context = self.prompt_tokens[conversation.uid] + conversation.tokens
            own_seed = int(digest([self.seed, conversation.uid, turn]), 16)
            requests.append(Request(context, own_seed, self.room(conversation)))

        for conversation, completion in zip(conversations, self.engine.generate(requests)):
            conversation.tokens += completion.tokens
            conversation.mask += [1] * len(completion.tokens)
            conversation.logps += completion.logps
            conversation.finish = completion.finish

            if self.speaks_in_turns:
                text = self.engine.tokenizer.decode(completion.tokens, skip_special_tokens=True)
                conversation.turns.append({"role": "assistant", "content": text})
            else:
                conversation.text = self.engine.tokenizer.decode(conversation.tokens)

    def hear(self, conversation: Conversation, text: str) -> bool:
        text = cut_in_the_middle(self.engine.tokenizer, text, self.reply_tokens)
        written = text
        if self.speaks_in_turns:
            written = continuation(self.engine.tokenizer, self.template, text)

        ids = self.engine.tokenizer.encode(written, add_special_tokens=False)
        if len(ids) > self._context_left(conversation):
            return False

        if self.speaks_in_turns:
            conversation.turns.append({"role": "user", "content": text})
        conversation.tokens += ids
        conversation.mask += [0] * len(ids)
        return True

    def room(self, conversation: Conversation) -> int:
        return min(self.max_tokens - sum(conversation.mask), self._context_left(conversation))

    def _context_left(self, conversation: Conversation) -> int:
        """Return how many tokens of the model's context are left."""
        return self.engine.window - len(self.prompt_tokens[conversation.uid]) - len(conversation.tokens)


CUT = "\n[…]\n"  # stands for what is cut out of a text


def cut_in_the_middle(tokenizer, text: str, limit: int | None) -> str:
    """Return a text of at most about `limit` tokens: its beginning and its end, if it has more."""
    ids = tokenizer.encode(text, add_special_tokens=False) if limit else []
    if not limit or len(ids) <= limit:
        return text

    head, tail = ids[: limit - limit // 2], ids[len(ids) - limit // 2 :]
    return tokenizer.decode(head) + CUT + tokenizer.decode(tail)


class TextSpeaker:
    """A teacher that speaks text, in the policy's place."""

    def __init__(
        self,
        engine: TextEngine,
        requests: dict[str, str | list[Message]],
        environment: Environment,
        max_tokens: int,
        seed: str,
    ):
        """`requests` holds what each conversation is asked, by uid."""
        self.engine = engine
        self.chats = {uid: list(as_messages(request)) for uid, request in requests.items()}
        self.left = dict.fromkeys(requests, max_tokens)
        self.seed = seed
        self.speaks_in_turns = environment.replies_to == "eos"

    def speak(self, conversations: Sequence[Conversation], turn: int) -> None:
        chats = []
        for conversation in conversations:
            own_seed = int(digest([self.seed, conversation.uid, turn]), 16) % 2**31  # the range that servers accept
            chats.append(Chat(list(self.chats[conversation.uid]), own_seed, self.left[conversation.uid]))

        for conversation, reply in zip(conversations, self.engine.generate(chats)):
            message: Message = {"role": "assistant", "content": reply.text}
            conversation.text += reply.text
            conversation.finish = reply.finish
            conversation.rejected = reply.rejected
            self.chats[conversation.uid].append(message)
            self.left[conversation.uid] -= reply.tokens

            if self.speaks_in_turns:
                conversation.turns.append(message)

    def hear(self, conversation: Conversation, text: str) -> bool:
        message: Message = {"role": "user", "content": text}
        conversation.text += text
        self.chats[conversation.uid].append(message)

        if self.speaks_in_turns:
            conversation.turns.append(message)
        return True

    def room(self, conversation: Conversation) -> int:
        return self.left[conversation.uid]


def play(
    conversations: Sequence[Conversation],
    engine: TokenEngine,
    prompt_tokens: dict[str, list[int]],
    environment: Environment,
    template: str,
    sampling: dict[str, Any],
    seed: str,
) -> list[Conversation]:
    """Play conversations with the policy; draw those with a fault again, each time from a seed of its own.

    The number of redraws is bounded by the environment. The last draw is kept, with its fault.
    """

    def draw(chosen: Sequence[Conversation], own_seed: str) -> None:
        speaker = TokenSpeaker(
            engine,
            prompt_tokens,
            environment,
            template,
            sampling["max_tokens"],
            own_seed,
            sampling.get("reply_tokens"),
        )
        converse(chosen, speaker, environment, sampling["turns"])

    finished = list(conversations)
    draw(finished, seed)

    for attempt in range(1, environment.resamples + 1):
        faulty = [
            i
            for i, conversation in enumerate(finished)
            if not conversation.rejected and environment.fault(conversation)
        ]
        if not faulty:
            break
        redrawn = [Conversation(finished[i].uid, finished[i].prompt, draws=1 + attempt) for i in faulty]
        draw(redrawn, f"{seed}.again{attempt}")
        for i, conversation in zip(faulty, redrawn):
            finished[i] = conversation

    for conversation in finished:
        conversation.fault = environment.fault(conversation)

    return finished


def encode_foreign(
    conversation: Conversation, pieces: list[Piece], environment: Environment, tokenizer, template: str
) -> None:
    """Give a conversation in text its tokens and mask, in place. The policy's log-probs of them are unknown.

    `pieces` are the answer's text; in a dialogue, its turns are used instead.
    """
    has_ended = conversation.finish == "eos"

    if environment.replies_to == "eos":
        pieces = []
        for turn in conversation.turns:
            if turn["role"] == "assistant":
                pieces += [(turn["content"], True), (tokenizer.eos_token, True)]
            else:
                pieces.append((continuation(tokenizer, template, turn["content"]), False))
        pieces = pieces[:-1]  # the last turn is the policy's, and its EOS is added as a token
        has_ended = True

    conversation.tokens, conversation.mask = encode_pieces(tokenizer, pieces, end=has_ended)
