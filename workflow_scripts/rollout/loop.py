"""The rollout loop: the policy speaks, the environment replies, until the answer is complete or no turns are left.

Each conversation is a coroutine of its own. `feeding.py` runs many of them at the same time.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from workflow_scripts.core.chat import continuation
from workflow_scripts.core.identity import digest
from workflow_scripts.core.records import Message, Piece
from workflow_scripts.core.templates import as_messages
from workflow_scripts.core.tokens import encode_pieces
from workflow_scripts.engines import Chat, Request, TokenEngine
from workflow_scripts.rollout.environment import Conversation, Environment, Turn

Complete = Callable[[Any], Awaitable[Any]]  # a Request → its Completion, or a Chat → its Reply
Answer = Callable[[Conversation], Awaitable[Turn]]  # a conversation → the environment's reply


class Speaker(Protocol):
    """The policy's side of one conversation."""

    async def speak(self, conversation: Conversation, turn: int) -> None:
        """Add the policy's next turn to a conversation."""
        ...

    def hear(self, conversation: Conversation, text: str) -> bool:
        """Add what the environment said to a conversation; return whether it fits into the context."""
        ...

    def room(self, conversation: Conversation) -> int:
        """Return how many tokens the policy may still write in a conversation."""
        ...


async def converse(
    conversation: Conversation, speaker: Speaker, environment: Environment, answer: Answer, turns: int
) -> None:
    """Play a conversation to its end, in place. One that fills the policy's context ends with `length`."""
    if speaker.room(conversation) <= 0:
        conversation.rejected = "the prompt is longer than the model's context"
        return

    for turn in range(turns):
        await speaker.speak(conversation, turn)
        if conversation.rejected or conversation.finish != environment.replies_to or speaker.room(conversation) <= 0:
            return
        if turn + 1 == turns and not environment.has_last_word:
            return

        reply = await answer(conversation)
        conversation.rejected = reply.rejected
        if reply.text is None or reply.rejected:
            return
        if not speaker.hear(conversation, reply.text) or speaker.room(conversation) <= 0:
            conversation.finish = "length"
            return
        conversation.finish = "turns"


class TokenSpeaker:
    """A policy that continues tokens. Each turn draws from a seed of its own, so batches do not matter."""

    def __init__(
        self,
        engine: TokenEngine,
        complete: Complete,
        prompt_tokens: list[int],
        environment: Environment,
        template: str,
        seed: str,
        max_tokens: int,
        reply_tokens: int | None = None,
    ):
        """`complete` asks the engine; `prompt_tokens` are those of the conversation's prompt.

        What the environment says is cut to `reply_tokens`; None: it is never cut.
        """
        self.engine = engine
        self.complete = complete
        self.reply_tokens = reply_tokens
        self.prompt_tokens = prompt_tokens
        self.template = template
        self.max_tokens = max_tokens
        self.seed = seed
        self.speaks_in_turns = environment.replies_to == "eos"

    async def speak(self, conversation: Conversation, turn: int) -> None:
        context = self.prompt_tokens + conversation.tokens
        own_seed = int(digest([self.seed, conversation.uid, turn]), 16)
        completion = await self.complete(Request(context, own_seed, self.room(conversation), conversation.uid))

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
        return self.engine.window - len(self.prompt_tokens) - len(conversation.tokens)


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
        complete: Complete,
        request: str | list[Message],
        environment: Environment,
        max_tokens: int,
        seed: str,
    ):
        """`complete` asks the teacher; `request` is what the conversation begins with."""
        self.complete = complete
        self.messages = list(as_messages(request))
        self.left = max_tokens
        self.seed = seed
        self.speaks_in_turns = environment.replies_to == "eos"

    async def speak(self, conversation: Conversation, turn: int) -> None:
        own_seed = int(digest([self.seed, conversation.uid, turn]), 16) % 2**31  # the range that servers accept
        reply = await self.complete(Chat(list(self.messages), own_seed, self.left, conversation.uid))

        message: Message = {"role": "assistant", "content": reply.text}
        conversation.text += reply.text
        conversation.finish = reply.finish
        conversation.rejected = reply.rejected
        self.messages.append(message)
        self.left -= reply.tokens

        if self.speaks_in_turns:
            conversation.turns.append(message)

    def hear(self, conversation: Conversation, text: str) -> bool:
        message: Message = {"role": "user", "content": text}
        conversation.text += text
        self.messages.append(message)

        if self.speaks_in_turns:
            conversation.turns.append(message)
        return True

    def room(self, conversation: Conversation) -> int:
        return self.left


async def play(
    conversation: Conversation,
    speaker_of: Callable[[str], Speaker],
    environment: Environment,
    answer: Answer,
    turns: int,
    seed: str,
) -> Conversation:
    """Play a conversation to its end; draw one with a fault again, each time from a seed of its own.

    The number of redraws is bounded by the environment. The last draw is kept, with its fault. `speaker_of` returns the
    policy's side for a seed.
    """

    async def draw(own_seed: str, number: int) -> Conversation:
        drawn = Conversation(conversation.uid, conversation.prompt, draws=number)
        await converse(drawn, speaker_of(own_seed), environment, answer, turns)
        drawn.fault = environment.fault(drawn)
        return drawn

    drawn = await draw(seed, 1)
    for attempt in range(1, environment.resamples + 1):
        if drawn.rejected or not drawn.fault:
            break
        drawn = await draw(f"{seed}.again{attempt}", 1 + attempt)

    return drawn


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
