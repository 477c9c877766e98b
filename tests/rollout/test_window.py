"""A conversation that fills the model's context ends there."""

import pytest

from tests.workshop import small_tokenizer
from workflow_scripts.engines import Completion
from workflow_scripts.init_model import train_tokenizer
from workflow_scripts.rollout.environment import Conversation, Environment, Turn
from workflow_scripts.rollout.feeding import play_all
from workflow_scripts.rollout.loop import CUT, TokenSpeaker, converse, cut_in_the_middle

PROMPT = {"id": "a", "question": "?", "reference": "1", "level": "x"}


class Engine:
    """An engine that writes w5 three times in each turn, within its limits."""

    version: dict = {}  # noqa: RUF012

    def __init__(self, window: int):
        self.window = window
        self.tokenizer = small_tokenizer()
        self.tokenizer.backend_tokenizer.pre_tokenizer = None
        self.requests: list = []

    def generate(self, requests):
        self.requests += requests
        for request in requests:
            assert 0 < len(request.tokens) + request.max_tokens <= self.window
        lengths = [min(3, request.max_tokens) for request in requests]
        return [Completion([5] * length, "stop" if length == 3 else "length") for length in lengths]


class Talker(Environment):
    """Says w6 once for each token that it has to say."""

    stop = ("w5",)

    def __init__(self, length: int):
        self.length = length

    def reply(self, conversations):
        return [Turn("w6" * self.length) for _ in conversations]


def play(window: int, prompt: int, reply: int, turns: int = 5, **options) -> tuple[Conversation, Engine]:
    engine = Engine(window)
    engine.tokenizer.encode = lambda text, add_special_tokens=False: [6] * text.count("w6")
    engine.tokenizer.decode = lambda tokens, **_: "".join(f"w{token}" for token in tokens)
    environment = Talker(reply)

    async def play_one(conversation, complete, answer):
        speaker = TokenSpeaker(engine, complete, [7] * prompt, environment, "deepseek", "0", 100, **options)
        await converse(conversation, speaker, environment, answer, turns)
        return conversation

    (conversation,) = play_all([Conversation("a", PROMPT)], engine, environment, play_one)
    return conversation, engine


def test_what_fits_is_as_before():
    conversation, engine = play(window=1000, prompt=10, reply=4, turns=3)
    assert conversation.finish == "turns"
    assert len(conversation.tokens) == 3 * (3 + 4)
    assert [request.max_tokens for request in engine.requests] == [100, 97, 94]


def test_a_reply_that_does_not_fit_ends_the_conversation():
    conversation, engine = play(window=40, prompt=10, reply=50)
    assert conversation.finish == "length"
    assert conversation.tokens == [5, 5, 5]
    assert len(engine.requests) == 1


@pytest.mark.parametrize("window", range(11, 40))
def test_no_conversation_outgrows_the_window(window):
    conversation, _ = play(window=window, prompt=10, reply=4)
    assert 10 + len(conversation.tokens) <= window
    assert conversation.finish in ("length", "stop") or len(conversation.tokens) == 5 * 7


def test_a_prompt_without_room_for_an_answer_is_rejected():
    conversation, engine = play(window=10, prompt=10, reply=1)
    assert conversation.rejected == "the prompt is longer than the model's context"
    assert not engine.requests


def test_long_replies_are_cut_in_the_middle():
    conversation, _ = play(window=1000, prompt=10, reply=50, turns=1, reply_tokens=8)
    assert conversation.mask.count(0) == 8

    tokenizer = train_tokenizer(["1234 "] * 10, 300)
    text = "begin " + "1234 " * 2000 + "end"
    cut = cut_in_the_middle(tokenizer, text, 64)
    assert cut.startswith("begin 1234") and cut.endswith("1234 end") and CUT in cut
    assert len(tokenizer.encode(cut)) < 80
    assert cut_in_the_middle(tokenizer, text, None) == text
