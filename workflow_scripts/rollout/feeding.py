"""How many conversations are played at the same time, and how their requests reach the engine.

A continuous engine gets each request as soon as it is ready: while some conversations wait for their environment,
others are computed. An engine of batches gets the requests of all conversations of a batch together, turn by turn, so
that a batch that is played again is the same to the bit.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from workflow_scripts.rollout.environment import Conversation, Environment, Turn
from workflow_scripts.rollout.loop import Answer, Complete

Play = Callable[[Conversation, Complete, Answer], Awaitable[Any]]  # plays a conversation and returns the result
Waiting = list[tuple[Any, "asyncio.Future[Any]"]]
Item = TypeVar("Item")
TICK = 1.0  # seconds


def is_continuous(engine: Any) -> bool:
    """Return whether an engine answers continuously; else it answers in batches."""
    return hasattr(engine, "complete")


def play_all(conversations: Sequence[Conversation], engine: Any, environment: Environment, play: Play) -> list[Any]:
    """Play all conversations with an engine of either kind, and return the results in order."""
    if not is_continuous(engine):
        return play_batch(conversations, engine, environment, play)

    results: dict[str, Any] = {}
    play_continuously(conversations, engine, environment, play, results.__setitem__)
    return [results[conversation.uid] for conversation in conversations]


# ---------------------------------------------------------------- continuously


def play_continuously(
    conversations: Sequence[Conversation],
    engine: Any,
    environment: Environment,
    play: Play,
    finished: Callable[[str, Any], None],
    tick: Callable[[], None] = lambda: None,
) -> None:
    """Play conversations, as many at the same time as keep a continuous engine full.

    Args:
        conversations: they begin in this order.
        engine: see `Continuous`.
        environment: what replies.
        play: plays one conversation.
        finished: receives the uid and the result of each conversation when it has ended.
        tick: is called about once a second. An error that it raises ends everything at once.
    """

    async def feed() -> None:
        with Replies(environment) as answer:
            async with engine.running():

                async def play_one(conversation: Conversation) -> None:
                    finished(conversation.uid, await play(conversation, engine.complete, answer))

                await each(conversations, play_one, engine.playing, tick)

    asyncio.run(feed())


async def each(
    items: Sequence[Item], work: Callable[[Item], Awaitable[None]], limit: int, tick: Callable[[], None]
) -> None:
    """Work on items, at most `limit` at the same time.

    After an error no item is begun. Those that were begun come to their end, so that their results are not lost; then
    the first error is raised. An error of `tick`, which is called about once a second, ends everything at once.
    """
    left: Iterator[Item] = iter(items)
    errors: list[Exception] = []

    async def work_on() -> None:
        for item in left:  # all workers share the iterator
            try:
                await work(item)
            except Exception as error:
                errors.append(error)
            if errors:
                return

    pending = {asyncio.create_task(work_on()) for _ in range(min(limit, len(items)))}
    while pending:
        _, pending = await asyncio.wait(pending, timeout=TICK, return_when=asyncio.FIRST_COMPLETED)
        tick()

    if errors:
        raise errors[0]


class Replies:
    """Calls an environment's `reply` in threads, so that the engine goes on meanwhile."""

    def __init__(self, environment: Environment):
        self.environment = environment
        self.threads = ThreadPoolExecutor(environment.threads or 1)
        self.waiting: Waiting = []
        self.worker: asyncio.Task[None] | None = None

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.threads.shutdown(cancel_futures=True)

    async def __call__(self, conversation: Conversation) -> Turn:
        """Return the reply to a conversation."""
        if self.environment.threads:
            return (await self._reply([conversation]))[0]

        future = asyncio.get_running_loop().create_future()
        self.waiting.append((conversation, future))
        if self.worker is None:
            self.worker = asyncio.create_task(self._reply_to_all())
        return await future

    async def _reply_to_all(self) -> None:
        """Reply to all conversations that wait, and then to those that came meanwhile."""
        while self.waiting:
            waiting, self.waiting = self.waiting, []
            try:
                turns = await self._reply([conversation for conversation, _ in waiting])
                _settle(waiting, turns)
            except Exception as error:
                _fail(waiting, error)
        self.worker = None

    async def _reply(self, conversations: list[Conversation]) -> list[Turn]:
        return await asyncio.get_running_loop().run_in_executor(self.threads, self.environment.reply, conversations)


def _settle(waiting: Waiting, results: Sequence[Any]) -> None:
    for (_, future), result in zip(waiting, results, strict=True):
        if not future.done():
            future.set_result(result)


def _fail(waiting: Waiting, error: Exception) -> None:
    for _, future in waiting:
        if not future.done():
            future.set_exception(error)


# ---------------------------------------------------------------- in batches


def play_batch(conversations: Sequence[Conversation], engine: Any, environment: Environment, play: Play) -> list[Any]:
    """Play conversations as one batch and return the results in order.

    The engine gets the next requests of all conversations together, in the conversations' order.
    """

    async def feed() -> list[Any]:
        batch = Batch(engine, [conversation.uid for conversation in conversations])

        async def play_one(conversation: Conversation) -> Any:
            result = await play(conversation, batch.complete, answer)
            batch.leave()
            return result

        with Replies(environment) as answer:
            return await asyncio.gather(*map(play_one, conversations))

    return asyncio.run(feed())


class Batch:
    """Collects the requests of conversations until each that goes on has one, and then asks the engine."""

    def __init__(self, engine: Any, uids: Sequence[str]):
        self.engine = engine
        self.place = {uid: place for place, uid in enumerate(uids)}
        self.count = len(uids)  # of conversations that go on
        self.waiting: Waiting = []

    async def complete(self, request: Any) -> Any:
        """Return the engine's answer to a request."""
        future = asyncio.get_running_loop().create_future()
        self.waiting.append((request, future))
        self._ask_when_complete()
        return await future

    def leave(self) -> None:
        """Take note that a conversation has ended."""
        self.count -= 1
        self._ask_when_complete()

    def _ask_when_complete(self) -> None:
        if self.waiting and len(self.waiting) == self.count:
            asyncio.get_running_loop().call_soon(self._ask)

    def _ask(self) -> None:
        waiting = sorted(self.waiting, key=lambda pair: self.place[pair[0].uid])
        self.waiting = []
        try:
            _settle(waiting, self.engine.generate([request for request, _ in waiting]))
        except Exception as error:
            _fail(waiting, error)
