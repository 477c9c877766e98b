"""Any OpenAI-compatible endpoint, for teachers, simulated users and judges: chat messages in, text out.

Every attempt enters a ledger before it is sent and after it came back, so that answered requests are never sent again
and the budget holds over restarts. An attempt costs what the answer's usage says, nothing if the server refused it (4xx
and 5xx are not billed), and its upper bound if its fate is unknown (killed, timed out, unreadable). Parallel jobs share
a ledger and the endpoint's limits (core/running/sharing.py). The key is read from the environment and stored nowhere.
"""

import asyncio
import contextlib
import email.utils
import os
import time
import uuid
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
import openai
import tenacity
from openai.types.chat import ChatCompletion

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.identity import digest
from workflow_scripts.core.running.cli import progress, say
from workflow_scripts.core.running.deadline import STARTED, OutOfTime, deadline
from workflow_scripts.core.running.ledger import Ledger
from workflow_scripts.core.running.sharing import POLL, SharedLimits
from workflow_scripts.engines import Chat, Reply

REMOTE = True  # it returns text, and needs no GPU
PACKAGES = ("openai", "httpx2", "tenacity")

ATTEMPTS = 20  # with waits of up to a minute, they last through a quarter of an hour without service
FILTERED = ("content_filter", "content_policy_violation")  # codes of a 400 that neither a retry nor a person can mend


class Transient(Exception):
    """Raised for an answer that breaks the protocol, such as one without choices. The request is sent again."""

    def __init__(self, message: str, usage: Any = None):
        super().__init__(message)
        self.usage = usage


class Account:
    """What the requests in a ledger cost, by purpose. The newest cost of an attempt replaces its earlier one."""

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


class Engine:
    """Sends requests to an endpoint and keeps account of them."""

    def __init__(
        self, settings: dict[str, Any], sampling: dict[str, Any], stop: Sequence[str], ledger: Ledger, purpose: str
    ):
        """
        Args:
            settings: a section of the config for an endpoint, as JSON.
            sampling: temperature and top_p.
            stop: strings after which the environment continues.
            ledger: the run's ledger of paid requests, which all purposes share.
            purpose: what the requests are for, in messages and in the account.
        """
        self.settings = settings
        self.sampling = {key: sampling[key] for key in ("temperature", "top_p")}
        self.stop = list(stop)
        self.ledger = ledger
        self.purpose = purpose
        self.version = {"engine": "openai"} | {key: settings[key] for key in ("base_url", "model")}
        self.key = _key(settings["key_env"])
        self.limits = SharedLimits(
            ledger.folder / "limits" / digest(self.version)[:16],
            settings["concurrency"],
            settings["requests_per_minute"],
            settings["tokens_per_minute"],
        )

        self.account = Account()
        self.answers: dict[str, dict[str, Any]] = {}
        self.read: dict[Path, int] = {}  # how far each file of the ledger was read
        self._read_news()
        self.runner = asyncio.Runner()  # one event loop for all turns

    def generate(self, chats: Sequence[Chat]) -> list[Reply]:
        """Return a reply to each conversation, in order; an unusable one has its reason in `rejected`."""
        return self.runner.run(self._generate(chats))

    async def _generate(self, chats: Sequence[Chat]) -> list[Reply]:
        wanted = {self._digest(chat): chat for chat in chats}
        todo = [key for key in wanted if key not in self.answers]
        if len(todo) < len(wanted):
            say(f"{self.purpose}: {len(wanted) - len(todo)} of {len(wanted)} requests are answered already")

        self.slots = asyncio.Semaphore(self.settings["concurrency"])
        self.settled = asyncio.Condition()
        self.pending = 0
        self.halt: Exception | None = None
        options = {key: self.settings[key] for key in ("base_url", "timeout")}

        # No connection is used twice: an answer that a proxy sends twice would be read as the next request's answer.
        http = openai.DefaultAsyncHttpxClient(limits=httpx2.Limits(max_keepalive_connections=0))
        async with openai.AsyncOpenAI(**options, api_key=self.key, max_retries=0, http_client=http) as self.client:
            with progress(total=len(wanted), desc=self.purpose, unit="request") as bar:
                bar.update(len(wanted) - len(todo))
                await asyncio.gather(*(self._answer(key, wanted[key], bar) for key in todo))

        if self.halt:
            done = sum(key in self.answers for key in wanted)
            kept = f"{done} of {len(wanted)} requests are answered and will not be sent again"
            raise type(self.halt)(f"{self.purpose}: {self.halt}\n{kept}") from self.halt

        return [self._reply(self.answers[self._digest(chat)]) for chat in chats]

    def close(self) -> None:
        """End the event loop."""
        self.runner.close()

    @property
    def usage(self) -> dict[str, float]:
        """What this engine's purpose cost so far, and all that the run spent on endpoints."""
        self._read_news()
        return {"cost": self.account.by_purpose[self.purpose], "cost_of_run": self.account.spent}

    def _digest(self, chat: Chat) -> str:
        """Return the digest of everything that an answer depends on: the key of its ledger entry."""
        return digest([self.version, self.sampling, chat.messages, chat.seed, chat.max_tokens])

    # ------------------------------------------------------------ attempts

    async def _answer(self, key: str, chat: Chat, bar: Any) -> None:
        """Attempt a request until it is answered. The first error that no retry mends halts all unsent requests."""
        is_halted: Any = lambda state: self.halt is not None  # noqa: E731
        attempts = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(is_transient),
            wait=pause,
            stop=tenacity.stop_any(tenacity.stop_after_attempt(ATTEMPTS), is_halted),
            reraise=True,
        )

        try:
            await attempts(self._attempt, key, chat)
            bar.update()
        except (BadInput, OutOfTime) as error:
            self.halt = self.halt or error
        except (openai.OpenAIError, Transient) as error:
            self.halt = self.halt or BadInput(explain(error))

    async def _attempt(self, key: str, chat: Chat) -> None:
        bound = self._bound(chat)

        while not await self._send_within_limits(key, chat, bound):
            await self._wait_for_money(bound)

    async def _send_within_limits(self, key: str, chat: Chat, bound: float) -> bool:
        """Send a request when the limits allow it; return False if its bound exceeds what is left of the budget."""
        async with self.slots, self.limits.in_flight(self._check_going_on):
            self._check_going_on()
            await self.limits.wait(_bytes(chat) // 3 + chat.max_tokens)  # the estimate that servers use
            self._check_going_on()

            attempt = uuid.uuid4().hex[:12]
            if not self._charge_bound(attempt, key, bound):
                return False

            self.pending += 1
            try:
                self._write(key, await self._send(chat, attempt, bound))
            except (openai.OpenAIError, Transient) as error:
                message = f"{type(error).__name__}: {error}"[:500]
                self._write(attempt, {"failed": message, "cost": self._cost_of_failure(error, bound)})
                raise
            finally:
                self.pending -= 1
                async with self.settled:
                    self.settled.notify_all()

            return True

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
            self._write(attempt, {"asked": key, "cost": bound})
            return True

        with self.limits.locked():
            self._read_news()
            if self.account.spent + bound > budget:
                return False
            self._write(attempt, {"asked": key, "cost": bound})
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

    async def _send(self, chat: Chat, attempt: str, bound: float) -> dict[str, Any]:
        """Send a request and return the ledger's entry of its answer. Refusals and cut-off texts are answers too."""
        messages: Any = chat.messages
        try:
            answer = await self.client.chat.completions.create(
                model=self.settings["model"],
                messages=messages,
                max_tokens=chat.max_tokens,
                seed=chat.seed,
                **self.sampling,
            )
        except openai.BadRequestError as error:
            if error.code not in FILTERED:
                raise
            return {"text": "", "finish": "content_filter", "attempt": attempt, "cost": 0.0, "tokens": 0}
        except ValueError as error:  # JSON that was cut off
            raise Transient(f"not JSON ({error})") from None

        choices = getattr(answer, "choices", None) if isinstance(answer, ChatCompletion) else None
        if not choices or getattr(choices[0], "message", None) is None:
            raise Transient("no choices in the answer", getattr(answer, "usage", None))

        choice = choices[0]
        usage = answer.usage
        refusal = getattr(choice.message, "refusal", None)
        return {
            "text": refusal or choice.message.content or "",
            "finish": "refusal" if refusal else choice.finish_reason,
            "attempt": attempt,
            "cost": self._cost(usage) if usage else bound,
            "tokens": usage.completion_tokens if usage else chat.max_tokens,
        }

    # ------------------------------------------------------------ the account

    def _write(self, key: str, entry: dict[str, Any]) -> None:
        entry = entry | {"for": self.purpose}
        self.ledger.append([(key, entry)])
        self._enter(key, entry)

    def _read_news(self) -> None:
        """Take in what parallel jobs, and earlier ones, entered into the ledger."""
        for key, entry in self.ledger.news(self.read):
            self._enter(key, entry)

    def _enter(self, key: str, entry: dict[str, Any]) -> None:
        if "text" in entry:
            self.answers[key] = entry
        self.account.charge(entry.get("attempt", key), entry["cost"], entry["for"])

    def _cost(self, usage: Any) -> float:
        prices = self.settings["prices"]
        cached = getattr(usage.prompt_tokens_details, "cached_tokens", None) or 0
        uncached = usage.prompt_tokens - cached
        cost = uncached * prices["input"] + cached * prices["cached"] + usage.completion_tokens * prices["output"]
        return cost / 1e6

    def _bound(self, chat: Chat) -> float:
        """Return what a request costs at most: a text has no more tokens than bytes, and a few frame each message."""
        prices = self.settings["prices"]
        return (_bytes(chat) * prices["input"] + chat.max_tokens * prices["output"]) / 1e6

    def _cost_of_failure(self, error: Exception, bound: float) -> float:
        if usage := getattr(error, "usage", None):
            return self._cost(usage)
        return 0.0 if isinstance(error, openai.APIStatusError) else bound

    def _reply(self, answer: dict[str, Any]) -> Reply:
        """Return a stored answer, cut after a stop string: what follows one is the environment's to write."""
        text = answer["text"]
        finish = answer["finish"]

        ends = [text.find(stop) + len(stop) for stop in self.stop if stop in text]
        if ends and finish in ("stop", "length"):
            return Reply(text[: min(ends)], "stop", None, answer["tokens"])

        reasons = {"stop": None, "length": "cut off at max_tokens", "refusal": f"refused: {text:.200}"}
        reason = reasons.get(finish, f"ended by {finish}")
        return Reply(text, "eos", reason or (None if text.strip() else "empty"), answer["tokens"])


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


def _bytes(chat: Chat) -> int:
    return sum(len(message["content"].encode()) + 16 for message in chat.messages) + 16


def _key(variable: str | None) -> str:
    if variable is None:
        return "none"  # the client insists on a key, but a private server may need none
    if not os.environ.get(variable):
        raise BadInput(f"the environment variable {variable} is not set; it should hold the endpoint's key (`key_env`)")
    return os.environ[variable]
