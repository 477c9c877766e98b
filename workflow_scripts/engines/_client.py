"""The common part of all requests to an OpenAI-compatible endpoint: the ledger, the budget, retries and limits.

Every attempt enters a ledger before it is sent and after it came back, so that answered requests are never sent again
and the budget holds over restarts. An attempt costs what the answer's usage says, nothing if the server refused it (4xx
and 5xx are not billed), and its upper bound if its fate is unknown (killed, timed out, unreadable). Parallel jobs share
a ledger and the endpoint's limits (core/running/sharing.py). The key is read from the environment and stored nowhere.
If an endpoint repeats it in a message, it is left out of the ledger, whose files only their owner can read.
"""

import asyncio
import contextlib
import email.utils
import os
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import httpx2
import openai
import tenacity

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.identity import digest
from workflow_scripts.core.running.cli import progress, say
from workflow_scripts.core.running.deadline import STARTED, OutOfTime, deadline
from workflow_scripts.core.running.ledger import Ledger
from workflow_scripts.core.running.secrets import remember
from workflow_scripts.core.running.sharing import POLL, SharedLimits

Entries = list[tuple[str, dict[str, Any]]]  # keys and values of a ledger

ATTEMPTS = 20  # with waits of up to a minute, they last through a quarter of an hour without service


class Transient(Exception):
    """Raised for an answer that breaks the protocol, such as one without choices. The request is sent again."""

    def __init__(self, message: str, usage: Any = None):
        super().__init__(message)
        self.usage = usage


class Account:
    """The costs of the requests in a ledger, by purpose. The newest cost of an attempt replaces its earlier one."""

    def __init__(self):
        self.attempts: dict[str, tuple[str, float]] = {}  # purpose and present cost
        self.spent = 0.0
        self.by_purpose: defaultdict[str, float] = defaultdict(float)

    def charge(self, attempt: str, cost: float, purpose: str) -> None:
        _, before = self.attempts.get(attempt, (purpose, 0.0))
        self.attempts[attempt] = purpose, cost
        self.spent += cost - before
        self.by_purpose[purpose] += cost - before

    def __str__(self) -> str:
        costs = sorted(self.by_purpose.items(), key=lambda item: -item[1])
        return "; ".join(f"{cost:.6g} for {purpose}" for purpose, cost in costs) or "nothing"


class Client:
    """Sends requests to an endpoint and keeps account of them.

    A subclass says what a request is: `_bytes`, `_most_tokens` and `_send`.
    """

    ANSWER: ClassVar[str]  # the field of a ledger entry that holds an answer

    def __init__(self, settings: dict[str, Any], ledger: Ledger, purpose: str, version: dict[str, Any]):
        """
        Args:
            settings: a section of the config for an endpoint, as JSON.
            ledger: the run's ledger of paid requests, which all purposes share.
            purpose: what the requests are for, in messages and in the account.
            version: what answers depend on beside the request.
        """
        self.settings = settings
        self.ledger = ledger
        self.ledger.is_private = True
        self.purpose = purpose
        self.version = version
        self.key = _key(settings["key_env"])
        self.limits = SharedLimits(
            ledger.folder / "limits" / digest(version)[:16],
            settings["concurrency"],
            settings["requests_per_minute"],
            settings["tokens_per_minute"],
        )

        self.account = Account()
        self.answers: dict[str, dict[str, Any]] = {}
        self.read: dict[Path, int] = {}  # how far each file of the ledger was read
        self._read_news()
        self.runner = asyncio.Runner()  # the event loop of `ask`
        self.counts: Counter[str] = Counter()  # of answers to `fetch`: known before, or new
        self.halt: Exception | None = None

    def ask(self, requests: Mapping[str, Any], done: int, total: int, unit: str) -> None:
        """Send requests, by key, until each is answered.

        Args:
            requests: what is to be sent.
            done: the number of units that are answered already.
            total: the number of units in all.
            unit: what is counted; a request has as many units as it brings answers.
        """
        if done:
            say(f"{self.purpose}: {done} of {total} {unit}s are answered already")
        if requests:
            self.runner.run(self._ask(requests, done, total, unit))

    async def _ask(self, requests: Mapping[str, Any], done: int, total: int, unit: str) -> None:
        with progress(total=total, desc=self.purpose, unit=unit) as bar:
            bar.update(done)
            async with self.connected():
                counts = await asyncio.gather(*(self._answer(key, request, bar) for key, request in requests.items()))

        if self.halt:
            raise self._halted(f"{done + sum(counts)} of {total} {unit}s")

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Connect to the endpoint, for requests of the running event loop."""
        self.slots = asyncio.Semaphore(self.settings["concurrency"])
        self.settled = asyncio.Condition()
        self.pending = 0
        self.halt = None
        options = {key: self.settings[key] for key in ("base_url", "timeout")}

        # No connection is used twice: an answer that a proxy sends twice would be read as the next request's answer.
        http = openai.DefaultAsyncHttpxClient(limits=httpx2.Limits(max_keepalive_connections=0))
        async with openai.AsyncOpenAI(**options, api_key=self.key, max_retries=0, http_client=http) as self.client:
            yield

    def _halted(self, answered: str) -> Exception:
        """Return the error that ends the stage, with what is kept."""
        kept = f"{answered} are answered and will not be sent again"
        error = type(self.halt or BadInput())(f"{self.purpose}: {self.halt}\n{kept}")
        error.__cause__ = self.halt
        return error

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve `fetch` on the running event loop."""
        self.counts.clear()
        async with self.connected():
            yield
        if self.counts["known"]:
            say(f"{self.purpose}: {self.counts['known']} requests are answered already")

    async def fetch(self, key: str, request: Any) -> dict[str, Any]:
        """Send a request until it is answered, unless it was answered before, and return the ledger's entry."""
        if key in self.answers:
            self.counts["known"] += 1
            return self.answers[key]

        self.counts["new"] += await self._answer(key, request)
        if key not in self.answers:
            raise self._halted(f"{self.counts.total()} requests")
        return self.answers[key]

    def close(self) -> None:
        """End the event loop."""
        self.runner.close()

    @property
    def usage(self) -> dict[str, float]:
        """Return the cost of this engine's purpose so far, and all that the run spent on endpoints."""
        self._read_news()
        return {"cost": self.account.by_purpose[self.purpose], "cost_of_run": self.account.spent}

    # ------------------------------------------------------------ what a request is

    def _bytes(self, request: Any) -> int:
        """Return the bytes of a request's text, with what frames it: it has no more tokens."""
        raise NotImplementedError

    def _most_tokens(self, request: Any) -> int:
        """Return how many tokens the answer may have."""
        raise NotImplementedError

    async def _send(self, key: str, request: Any, attempt: str, bound: float) -> Entries:
        """Send a request and return the ledger's entries of its answers."""
        raise NotImplementedError

    # ------------------------------------------------------------ attempts

    async def _answer(self, key: str, request: Any, bar: Any = None) -> int:
        """Attempt a request until it is answered, and return the number of its answers.

        The first error that no retry mends halts all unsent requests.
        """
        is_halted: Any = lambda state: self.halt is not None  # noqa: E731
        attempts = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(is_transient),
            wait=pause,
            stop=tenacity.stop_any(tenacity.stop_after_attempt(ATTEMPTS), is_halted),
            reraise=True,
        )

        try:
            count = await attempts(self._attempt, key, request)
            if bar is not None:
                bar.update(count)
            return count
        except (BadInput, OutOfTime) as error:
            self.halt = self.halt or error
        except (openai.OpenAIError, Transient) as error:
            self.halt = self.halt or BadInput(explain(error))
        return 0

    async def _attempt(self, key: str, request: Any) -> int:
        """Send a request once, as soon as the limits allow it, and return the number of its answers."""
        bound = self._bound(request)

        while (count := await self._send_within_limits(key, request, bound)) is None:
            await self._wait_for_money(bound)
        return count

    async def _send_within_limits(self, key: str, request: Any, bound: float) -> int | None:
        """Send a request when the limits allow it, and return the number of its answers.

        Return None if its bound exceeds what is left of the budget.
        """
        async with self.slots, self.limits.in_flight(self._check_going_on):
            self._check_going_on()
            estimate = self._bytes(request) // 3 + self._most_tokens(request)  # as servers estimate
            await self.limits.wait(estimate)
            self._check_going_on()

            attempt = uuid.uuid4().hex[:12]
            if not self._charge_bound(attempt, key, bound):
                return None

            self.pending += 1
            try:
                entries = await self._send(key, request, attempt, bound)
                self._write(entries)
                return len(entries)
            except (openai.OpenAIError, Transient) as error:
                message = f"{type(error).__name__}: {error}"[:500]
                self._write([(attempt, {"failed": message, "cost": self._cost_of_failure(error, bound)})])
                raise
            finally:
                self.pending -= 1
                async with self.settled:
                    self.settled.notify_all()

    def _check_going_on(self) -> None:
        """Raise an error if nothing more is to be sent."""
        if self.halt:
            raise BadInput(str(self.halt))

        timeout = self.settings["timeout"]
        if timeout > deadline() - STARTED:
            raise BadInput(
                f"the endpoint's timeout of {timeout:g} s is longer than this job may run "
                f"({self.settings['base_url']}); lower the timeout, or ask for more time"
            )
        if time.time() + timeout > deadline():
            raise OutOfTime("the job's time is nearly up")

    def _charge_bound(self, attempt: str, key: str, bound: float) -> bool:
        """Enter an attempt at its bound, unless that could exceed the budget. Parallel jobs do so one after another."""
        budget = self.settings["budget"]
        if budget is None:
            self._write([(attempt, {"asked": key, "cost": bound})])
            return True

        with self.limits.locked():
            self._read_news()
            if self.account.spent + bound > budget:
                return False
            self._write([(attempt, {"asked": key, "cost": bound})])
            return True

    async def _wait_for_money(self, bound: float) -> None:
        """Wait while requests in flight, of any job, may turn out cheaper than their bounds; else raise BadInput."""
        budget = self.settings["budget"]

        while True:
            nothing_in_flight = not (self.pending or self.limits.others_are_in_flight())
            self._read_news()
            if self.halt:
                raise BadInput(str(self.halt))
            if self.account.spent + bound <= budget:
                return
            if nothing_in_flight:
                raise BadInput(
                    f"the budget is reached: the next request may cost {bound:.6g}, and {self.account.spent:.6g} of "
                    f"{budget:.6g} are spent ({self.account}). Raise `budget` and run again"
                )

            with contextlib.suppress(TimeoutError):  # requests of other jobs do not notify
                async with asyncio.timeout(POLL), self.settled:
                    await self.settled.wait()

    # ------------------------------------------------------------ the account

    def _write(self, entries: Entries) -> None:
        entries = [(key, entry | {"for": self.purpose}) for key, entry in entries]
        self.ledger.append(entries)
        for key, entry in entries:
            self._enter(key, entry)

    def _read_news(self) -> None:
        """Take in what parallel jobs, and earlier ones, entered into the ledger."""
        for key, entry in self.ledger.news(self.read):
            self._enter(key, entry)

    def _enter(self, key: str, entry: dict[str, Any]) -> None:
        if self.ANSWER in entry:
            self.answers[key] = entry
        self.account.charge(entry.get("attempt", key), entry["cost"], entry["for"])

    def _cost(self, usage: Any) -> float:
        prices = self.settings["prices"]
        cached = getattr(getattr(usage, "prompt_tokens_details", None), "cached_tokens", None) or 0
        uncached = usage.prompt_tokens - cached
        written = getattr(usage, "completion_tokens", 0)
        return (uncached * prices["input"] + cached * prices["cached"] + written * prices["output"]) / 1e6

    def _bound(self, request: Any) -> float:
        """Return what a request costs at most."""
        prices = self.settings["prices"]
        return (self._bytes(request) * prices["input"] + self._most_tokens(request) * prices["output"]) / 1e6

    def _cost_of_failure(self, error: Exception, bound: float) -> float:
        if usage := getattr(error, "usage", None):
            return self._cost(usage)
        return 0.0 if isinstance(error, openai.APIStatusError) else bound


# ---------------------------------------------------------------- retries


def is_transient(error: BaseException) -> bool:
    """Return whether the same request may be answered when it is sent again."""
    if isinstance(error, openai.APIStatusError):
        is_busy = error.status_code in (408, 409, 429) or error.status_code >= 500
        return is_busy and error.code != "insufficient_quota"

    return isinstance(error, openai.APIConnectionError | openai.APIResponseValidationError | Transient)


def pause(state: tenacity.RetryCallState) -> float:
    """Return the seconds until the next attempt: a random share of a doubling span, on top of Retry-After."""
    error = state.outcome.exception() if state.outcome else None
    response = getattr(error, "response", None)
    header = response.headers.get("retry-after") if response is not None else None
    return _seconds(header) + tenacity.wait_random_exponential(multiplier=0.5, max=60)(state)


def _seconds(header: str | None) -> float:
    """Return the seconds in a Retry-After header, which holds seconds or a date."""
    if not header:
        return 0.0
    if header.replace(".", "", 1).isdigit():
        return float(header)

    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return 0.0


def explain(error: Exception) -> str:
    """Return what an error of an endpoint means for the stage."""
    if is_transient(error):
        return f"no answer after {ATTEMPTS} attempts, the last error: {error}; run again when the endpoint works"
    return f"the endpoint refuses the request: {error}"


def _key(variable: str | None) -> str:
    if variable is None:
        return "none"  # the client insists on a key, but a private server may need none
    if not os.environ.get(variable):
        raise BadInput(f"the environment variable {variable} is not set; it should hold the endpoint's key (`key_env`)")
    remember(variable)
    return os.environ[variable]
