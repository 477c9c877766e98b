"""Any OpenAI-compatible endpoint, for teachers, seekers and judges: chat messages in, text out.

Every attempt enters a ledger before it is sent and after it came back, so that answered requests are never sent
again and the budget holds over restarts: an attempt costs what the answer's usage says, nothing if the server said
no (4xx and 5xx are not billed), and its upper bound where nobody knows (killed, timed out, garbled). One process at
a time works on a ledger. The key is read from the environment and stored nowhere.
"""

import asyncio
import email.utils
import fcntl
import os
import time
import uuid
from collections import Counter
from collections.abc import Sequence

import httpx2
import openai
import tenacity
from openai.types.chat import ChatCompletion

from workflow_scripts.core.running.cli import progress, say
from workflow_scripts.core.running.deadline import STARTED, OutOfTime, deadline
from workflow_scripts.core.running.ledger import Ledger
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.identity import digest
from workflow_scripts.engines import Chat, Reply

REMOTE = True  # it returns text, and needs no GPU

ATTEMPTS = 20  # with waits of up to a minute, a quarter of an hour of outage
FILTERED = ("content_filter", "content_policy_violation")  # codes of a 400 that no retry and no person can mend


class Transient(Exception):
    """An answer that is none: no choices, or not the protocol's. The request is sent again."""

    def __init__(self, message: str, usage=None):
        super().__init__(message)
        self.usage = usage


class Pace:
    """At most so many units a minute, evenly: a leaky bucket, but for bursts that a server would refuse."""

    def __init__(self, per_minute: float | None):
        self.seconds = 60 / per_minute if per_minute else 0.0
        self.free = 0.0

    async def wait(self, units: int) -> None:
        start = max(time.monotonic(), self.free)
        self.free = start + units * self.seconds
        await asyncio.sleep(start - time.monotonic())


class Account:
    """What the requests in a ledger cost, by purpose. An attempt's newest cost takes the place of its earlier one."""

    def __init__(self):
        self.attempts: dict[str, tuple[str, float]] = {}  # purpose and present cost
        self.spent = 0.0
        self.by_purpose: Counter[str] = Counter()

    def charge(self, attempt: str, cost: float, purpose: str) -> None:
        _, before = self.attempts.get(attempt, (purpose, 0.0))
        self.attempts[attempt] = purpose, cost
        self.spent += cost - before
        self.by_purpose[purpose] += cost - before

    def __str__(self) -> str:
        return "; ".join(f"{cost:.6g} for {purpose}" for purpose, cost in self.by_purpose.most_common()) or "nothing"


class Engine:
    """`settings` is the config's `openai` section; `ledger` the run's, shared by all that it pays for."""

    def __init__(self, settings: dict, sampling: dict, stop: Sequence[str], ledger: Ledger, purpose: str):
        self.settings, self.stop, self.ledger, self.purpose = settings, list(stop), ledger, purpose
        self.sampling = {key: sampling[key] for key in ("temperature", "top_p")}
        self.version = {"engine": "openai"} | {key: settings[key] for key in ("base_url", "model")}
        self.key = _key(settings["key_env"])
        self.lock = _locked(ledger)
        self.account, self.answers = Account(), {}
        for key, entry in ledger.entries():
            self._enter(key, entry)
        self.runner = asyncio.Runner()  # one loop for all turns, so that limits hold over them
        self.requests, self.tokens = Pace(settings["requests_per_minute"]), Pace(settings["tokens_per_minute"])

    def generate(self, chats: Sequence[Chat]) -> list[Reply]:
        """A reply per conversation, in order; one that is not fit for use has a reason in `rejected`."""
        return self.runner.run(self._generate(chats))

    async def _generate(self, chats: Sequence[Chat]) -> list[Reply]:
        wanted = {self._digest(chat): chat for chat in chats}
        todo = [key for key in wanted if key not in self.answers]
        if len(todo) < len(wanted):
            say(f"{self.purpose}: {len(wanted) - len(todo)} of {len(wanted)} requests are answered already")
        self.slots, self.settled, self.pending = asyncio.Semaphore(self.settings["concurrency"]), asyncio.Condition(), 0
        self.halt: Exception | None = None
        options = {key: self.settings[key] for key in ("base_url", "timeout")}
        # No connection is used twice: an answer that a proxy sends twice would be read as the next request's.
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
        """Let another process work on the ledger."""
        self.runner.close()
        self.lock.close()

    @property
    def usage(self) -> dict:
        """What this engine's purpose cost so far, of all that the run spent on endpoints."""
        return {"cost": self.account.by_purpose[self.purpose], "cost_of_run": self.account.spent}

    def _digest(self, chat: Chat) -> str:
        """All that an answer depends on, and the key of its ledger entry."""
        return digest([self.version, self.sampling, chat.messages, chat.seed, chat.max_tokens])

    async def _answer(self, key: str, chat: Chat, bar) -> None:
        """Attempts until there is an answer. The first error that no retry mends halts all that is not yet sent."""
        attempts = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(is_transient),
            wait=pause,
            stop=tenacity.stop_after_attempt(ATTEMPTS) | (lambda state: self.halt is not None),
            reraise=True,
        )
        try:
            await attempts(self._attempt, key, chat)
            bar.update()
        except (openai.OpenAIError, Transient, BadInput, OutOfTime) as error:
            ends = isinstance(error, (BadInput, OutOfTime))
            self.halt = self.halt or (error if ends else BadInput(explained(error)))

    async def _attempt(self, key: str, chat: Chat) -> None:
        bound = self._bound(chat)
        async with self.slots:
            self._going_on()
            await self.tokens.wait(_bytes(chat) // 3 + chat.max_tokens)  # as servers estimate it themselves
            await self.requests.wait(1)
            self._going_on()
            await self._affordable(bound)
            attempt = uuid.uuid4().hex[:12]
            self._write(attempt, {"asked": key, "cost": bound})
            self.pending += 1
            try:
                self._write(key, await self._send(chat, attempt, bound))
            except (openai.OpenAIError, Transient) as error:
                self._write(
                    attempt, {"failed": f"{type(error).__name__}: {error}"[:500], "cost": self._lost(error, bound)}
                )
                raise
            finally:
                self.pending -= 1
                async with self.settled:
                    self.settled.notify_all()

    def _going_on(self) -> None:
        """Raises where nothing more is to be sent."""
        if self.halt:
            raise BadInput(str(self.halt))
        timeout = self.settings["timeout"]
        if timeout > deadline() - STARTED:
            raise BadInput(
                f"the endpoint's timeout of {timeout:g} s is more than this job has ({self.settings['base_url']}); "
                "lower it, or ask for more"
            )
        if time.time() + timeout > deadline():
            raise OutOfTime("the job's time is nearly up")

    async def _affordable(self, bound: float) -> None:
        """Wait while requests in flight may turn out cheaper than their bounds; BadInput if that is not enough."""
        budget = self.settings["budget"]
        async with self.settled:
            if budget is not None:
                await self.settled.wait_for(
                    lambda: self.halt or self.account.spent + bound <= budget or not self.pending
                )
        if self.halt:
            raise BadInput(str(self.halt))
        if budget is not None and self.account.spent + bound > budget:
            raise BadInput(
                f"the budget is reached: the next request may cost {bound:.6g}, and of {budget:.6g} "
                f"{self.account.spent:.6g} are spent ({self.account}). Raise `budget` and run again"
            )

    async def _send(self, chat: Chat, attempt: str, bound: float) -> dict:
        """The ledger's entry of an answer; refusals and cut-off texts are answers too."""
        asked = {"model": self.settings["model"], "messages": chat.messages, "max_tokens": chat.max_tokens}
        try:
            answer = await self.client.chat.completions.create(**asked, **self.sampling, seed=chat.seed)
        except openai.BadRequestError as error:
            if error.code not in FILTERED:
                raise
            return {"text": "", "finish": "content_filter", "attempt": attempt, "cost": 0.0, "tokens": 0}
        except ValueError as error:  # JSON cut off
            raise Transient(f"not JSON ({error})") from None
        choices = getattr(answer, "choices", None) if isinstance(answer, ChatCompletion) else None
        if not choices or getattr(choices[0], "message", None) is None:
            raise Transient("no choices in the answer", getattr(answer, "usage", None))
        choice, usage = choices[0], answer.usage
        refused = getattr(choice.message, "refusal", None)
        return {
            "text": refused or choice.message.content or "",
            "finish": "refusal" if refused else choice.finish_reason,
            "attempt": attempt,
            "cost": self._cost(usage) if usage else bound,
            "tokens": usage.completion_tokens if usage else chat.max_tokens,
        }

    def _write(self, key: str, entry: dict) -> None:
        entry = entry | {"for": self.purpose}
        self.ledger.append([(key, entry)])
        self._enter(key, entry)

    def _enter(self, key: str, entry: dict) -> None:
        if "text" in entry:
            self.answers[key] = entry
        self.account.charge(entry.get("attempt", key), entry["cost"], entry["for"])

    def _cost(self, usage) -> float:
        prices = self.settings["prices"]
        cached = getattr(usage.prompt_tokens_details, "cached_tokens", None) or 0
        fresh = usage.prompt_tokens - cached
        return (fresh * prices["input"] + cached * prices["cached"] + usage.completion_tokens * prices["output"]) / 1e6

    def _bound(self, chat: Chat) -> float:
        """What a request costs at most: a text has no more tokens than bytes, and some frame each message."""
        prices = self.settings["prices"]
        return (_bytes(chat) * prices["input"] + chat.max_tokens * prices["output"]) / 1e6

    def _lost(self, error: Exception, bound: float) -> float:
        if usage := getattr(error, "usage", None):
            return self._cost(usage)
        return 0.0 if isinstance(error, openai.APIStatusError) else bound

    def _reply(self, answer: dict) -> Reply:
        """The text, cut after a stop string: what follows one is the environment's to write."""
        text, finish = answer["text"], answer["finish"]
        ends = [text.find(stop) + len(stop) for stop in self.stop if stop in text]
        if ends and finish in ("stop", "length"):
            return Reply(text[: min(ends)], "stop", None, answer["tokens"])
        reasons = {"stop": None, "length": "cut off at max_tokens", "refusal": f"refused: {text:.200}"}
        reason = reasons.get(finish, f"ended by {finish}")
        return Reply(text, "eos", reason or (None if text.strip() else "empty"), answer["tokens"])


def is_transient(error: BaseException) -> bool:
    """Whether the same request may well be answered when it is sent again."""
    if isinstance(error, openai.APIStatusError):
        busy = error.status_code in (408, 409, 429) or error.status_code >= 500
        return busy and error.code != "insufficient_quota"
    return isinstance(error, (openai.APIConnectionError, openai.APIResponseValidationError, Transient))


def pause(state: tenacity.RetryCallState) -> float:
    """Seconds until the next attempt: a random share of a doubling span, on top of the server's Retry-After."""
    response = getattr(state.outcome.exception(), "response", None)
    asked = response.headers.get("retry-after") if response is not None else None
    return _seconds(asked) + tenacity.wait_random_exponential(multiplier=0.5, max=60)(state)


def _seconds(header: str | None) -> float:
    """A Retry-After header: seconds, or a date."""
    if not header:
        return 0.0
    if header.replace(".", "", 1).isdigit():
        return float(header)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return 0.0


def explained(error: Exception) -> str:
    if is_transient(error):
        return f"no answer after {ATTEMPTS} attempts, the last one: {error}; run again when the endpoint works"
    return f"the endpoint refuses: {error}"


def _bytes(chat: Chat) -> int:
    return sum(len(one["content"].encode()) + 16 for one in chat.messages) + 16


def _key(name: str | None) -> str:
    if name is None:
        return "none"  # the client insists on one; a server of one's own does not
    if not os.environ.get(name):
        raise BadInput(f"the environment variable {name} is not set: it should hold the endpoint's key (`key_env`)")
    return os.environ[name]


def _locked(ledger: Ledger):
    """A lock on the ledger that ends with the process: two writers would each spend the whole budget."""
    file = open(ledger.folder / ".lock", "w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say(f"waiting: another process works on {ledger.folder}")
        fcntl.flock(file, fcntl.LOCK_EX)
    return file
