"""Continuous engines never wait for a whole batch, and engines of batches get the same batches each time."""

import asyncio
import contextlib
import threading

import pytest

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.running.deadline import OutOfTime
from workflow_scripts.rollout.environment import Conversation, Environment, Turn
from workflow_scripts.rollout.feeding import play_all, play_continuously

PROMPT = {"id": "a", "question": "?", "reference": "1", "level": "x"}
PATIENCE = 60  # seconds, for what should happen at once


def conversations(count: int) -> list[Conversation]:
    return [Conversation(f"c{number}", PROMPT) for number in range(count)]  # type: ignore[arg-type]


class Request:
    """A request to the engines of this file."""

    def __init__(self, uid: str, turn: int):
        self.uid = uid
        self.turn = turn


class Continuous:
    """Answers each request at once, and counts the conversations that are open."""

    playing = 3

    def __init__(self):
        self.requests = []
        self.open: set[str] = set()
        self.most_open = 0

    @contextlib.asynccontextmanager
    async def running(self):
        yield

    async def complete(self, request):
        self.requests.append(request)
        self.open.add(request.uid)
        self.most_open = max(self.most_open, len(self.open))
        await asyncio.sleep(0)
        return "said"


class Batches:
    """Answers in batches, and notes them."""

    def __init__(self):
        self.batches = []

    def generate(self, requests):
        self.batches.append([(request.uid, request.turn) for request in requests])
        return ["said"] * len(requests)


async def two_turns(conversation, complete, answer):
    """Play two turns with a reply between them."""
    await complete(Request(conversation.uid, 0))
    await answer(conversation)
    await complete(Request(conversation.uid, 1))
    return conversation.uid


class Slow(Environment):
    """Replies to the first conversation only when all others have ended."""

    threads = 2

    def __init__(self):
        self.others_have_ended = threading.Event()

    def reply(self, conversations):
        if conversations[0].uid == "c0":
            assert self.others_have_ended.wait(PATIENCE)
        return [Turn("heard") for _ in conversations]


def test_a_slow_program_holds_no_other_conversation():
    environment = Slow()
    ended = []

    def finished(uid, result):
        ended.append(uid)
        if len(ended) == 9:
            environment.others_have_ended.set()

    engine = Continuous()
    play_continuously(conversations(10), engine, environment, two_turns, finished)
    assert sorted(ended) == sorted(f"c{number}" for number in range(10))
    assert ended[-1] == "c0"
    assert len(engine.requests) == 20


def test_as_many_conversations_are_open_as_the_engine_wants():
    engine = Continuous()

    async def play(conversation, complete, answer):
        result = await two_turns(conversation, complete, answer)
        engine.open.discard(conversation.uid)
        return result

    assert play_all(conversations(20), engine, Environment(), play) == [f"c{number}" for number in range(20)]
    assert engine.most_open == Continuous.playing


def test_conversations_that_wait_are_replied_to_together_by_one_thread():
    class Together(Environment):
        calls: list[list[str]] = []  # noqa: RUF012

        def reply(self, conversations):
            self.calls.append([conversation.uid for conversation in conversations])
            return [Turn("heard") for _ in conversations]

    environment = Together()
    play_all(conversations(6), Batches(), environment, two_turns)
    assert environment.calls == [[f"c{number}" for number in range(6)]]


def test_after_an_error_open_conversations_come_to_their_end():
    ended: dict = {}

    async def play(conversation, complete, answer):
        if conversation.uid == "c1":
            raise BadInput("wrong")
        return await two_turns(conversation, complete, answer)

    with pytest.raises(BadInput, match="wrong"):
        play_continuously(conversations(20), Continuous(), Environment(), play, ended.__setitem__)
    assert set(ended) == {"c0", "c2"}  # three were open


def test_an_error_of_tick_ends_everything():
    def tick():
        raise OutOfTime

    async def play(conversation, complete, answer):
        await asyncio.sleep(10 * PATIENCE)

    with pytest.raises(OutOfTime):
        play_continuously(conversations(4), Continuous(), Environment(), play, print, tick)


def test_the_error_of_an_environment_reaches_the_caller():
    class Broken(Environment):
        def reply(self, conversations):
            raise BadInput("no seeker")

    for engine in (Continuous(), Batches()):
        with pytest.raises(BadInput, match="no seeker"):
            play_all(conversations(4), engine, Broken(), two_turns)


def test_a_batch_is_asked_turn_by_turn_in_order():
    engine = Batches()

    async def play(conversation, complete, answer):
        if conversation.uid == "c2":  # has no room for an answer
            return None
        await complete(Request(conversation.uid, 0))
        await answer(conversation)
        if conversation.uid != "c1":  # has ended
            await complete(Request(conversation.uid, 1))
        return conversation.uid

    class Parallel(Environment):
        threads = 4  # replies come in any order

        def reply(self, conversations):
            return [Turn("heard") for _ in conversations]

    assert play_all(conversations(4), engine, Parallel(), play) == ["c0", "c1", None, "c3"]
    assert engine.batches == [[("c0", 0), ("c1", 0), ("c3", 0)], [("c0", 1), ("c3", 1)]]
