"""vLLM fed continuously, beside batches with a barrier per turn: the same engine, model, prompts and programs.

Each conversation has two turns whose lengths are drawn from a lognormal distribution, with a program between them. One
program in twenty runs into its limit: half of these compute for ever, the others wait for ever. The peer plays batches
of as many conversations as the engine takes at the same time, waits in each turn for the slowest answer, and then runs
the programs one after another. By default, vLLM takes 256 requests; here it takes 16, and programs have a second
instead of ten, so that the measurement takes minutes on a CPU.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.rollouts import results
from workflow_scripts.core.sandbox import Sandbox
from workflow_scripts.engines import Completion, Request, vllm
from workflow_scripts.init_model import make_model, train_tokenizer
from workflow_scripts.rollout.environment import Conversation, Environment, Turn
from workflow_scripts.rollout.feeding import play_batch, play_continuously
from workflow_scripts.rollout.loop import Answer, Complete, TokenSpeaker, converse

SCRATCH = {"layers": 3, "width": 128, "heads": 4, "mlp_width": 384, "context": 2048, "init_std": 0.06}
SAMPLING = {"temperature": 1.0, "top_p": 1.0, "top_k": 0}
SLOTS = 16  # max_num_seqs, and the conversations of the peer's batches
SANDBOXES = 2
LIMITS: Any = {"cpu_seconds": 1, "wall_seconds": 1}
MEDIAN, SIGMA, LONGEST = 64, 0.8, 512  # tokens of a turn
SHORT = "print(sum(i * i for i in range({number})))"
ENDLESS = ("number = {number}\nwhile True:\n    number += 1", "import time\ntime.sleep({number} + 1000)")


class Engine(vllm.Engine):
    """Gives each turn its planned length, and ends each first turn for the environment."""

    def __init__(self, model: str, lengths: dict[str, Sequence[int]]):
        settings = {"threads": 1, "dtype": "float32", "vllm": {"max_num_seqs": SLOTS}}
        super().__init__(model, settings, SAMPLING, stop=())
        self.lengths = lengths
        self.turns: Counter[str] = Counter()

    def forget(self) -> None:
        """Forget what was computed, before another side is measured."""
        self.turns.clear()
        self.engine.reset_prefix_cache()

    def _params(self, request: Request) -> Any:
        params = super()._params(request)
        params.ignore_eos = True
        params.max_tokens = self.lengths[request.uid][self.turns[request.uid]]
        self.turns[request.uid] += 1
        return params

    async def complete(self, request: Request) -> Completion:
        """Return a turn."""
        completion = await super().complete(request)
        completion.finish = "stop" if self.turns[request.uid] == 1 else "eos"
        return completion


class Barrier:
    """The same engine, asked for whole batches."""

    def __init__(self, engine: Engine):
        self.engine = engine

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Return the completions when the last one is finished."""
        numbers = [f"batch {request.uid} {self.engine.turns[request.uid]}" for request in requests]
        for number, request in zip(numbers, requests):
            prompt = {"prompt_token_ids": request.tokens}
            self.engine.engine.add_request(number, prompt, self.engine._params(request))

        completions = {}
        self.engine.load.resume()
        while self.engine.engine.has_unfinished_requests():
            for output in self.engine.engine.step():
                completions[output.request_id] = self.engine._completion(output.outputs[0])

        for number, request in zip(numbers, requests):
            completions[number].finish = "stop" if self.engine.turns[request.uid] == 1 else "eos"
        return [completions[number] for number in numbers]


class Programs(Environment):
    """Runs the program of a conversation."""

    stop = ("any",)

    def __init__(self, programs: dict[str, str], sandbox: Sandbox, threads: int | None):
        self.programs = programs
        self.sandbox = sandbox
        self.threads = threads

    def reply(self, conversations: Sequence[Conversation]) -> list[Turn]:
        return [
            Turn(self.sandbox(self.programs[conversation.uid])["output"] or "none") for conversation in conversations
        ]


def plan(count: int) -> tuple[dict[str, Sequence[int]], dict[str, str]]:
    """Return the lengths of each conversation's turns, and its program, by uid."""
    generator = np.random.default_rng(0)
    drawn = np.exp(generator.normal(np.log(MEDIAN), SIGMA, (count, 2)))
    lengths = {f"c{i}": drawn[i].clip(1, LONGEST).astype(int).tolist() for i in range(count)}

    programs = {}
    for i, uid in enumerate(lengths):
        is_endless = i % 20 == 10
        program = ENDLESS[i // 20 % 2] if is_endless else SHORT
        programs[uid] = program.format(number=i)

    return lengths, programs


class Sides:
    """Plays the same conversations by either side."""

    def __init__(self, folder: str, count: int):
        tokenizer = train_tokenizer(["What is 3 + 4? The answer is 7."] * 10, 384)
        make_model(SCRATCH, tokenizer, 0).save_pretrained(folder)
        tokenizer.save_pretrained(folder)

        lengths, self.programs = plan(count)
        self.engine = Engine(folder, lengths)
        self.prompts = {uid: tokenizer.encode(f"Question {uid}: what is 3 + 4?") for uid in lengths}
        self.all = [Conversation(uid, {"id": uid}) for uid in lengths]  # type: ignore[typeddict-item]
        self.conversations = self.all

    async def play(self, conversation: Conversation, complete: Complete, answer: Answer) -> None:
        """Play one conversation."""
        drawn = Conversation(conversation.uid, conversation.prompt)
        prompt = self.prompts[conversation.uid]
        speaker = TokenSpeaker(self.engine, complete, prompt, self.environment, "deepseek", "0", 2 * LONGEST + 1)
        await converse(drawn, speaker, self.environment, answer, turns=2)
        assert sum(drawn.mask) == sum(self.engine.lengths[conversation.uid]), "a turn has not its planned length"

    def continuously(self) -> float:
        """Return the answers per second of our side."""
        self.engine.forget()
        with Sandbox(processes=SANDBOXES, **LIMITS) as sandbox:
            sandbox("print()")
            self.environment = Programs(self.programs, sandbox, threads=SANDBOXES)
            start = time.perf_counter()
            play_continuously(self.conversations, self.engine, self.environment, self.play, lambda uid, result: None)
            return len(self.conversations) / (time.perf_counter() - start)

    def with_barriers(self) -> float:
        """Return the answers per second of the peer."""
        self.engine.forget()
        with Sandbox(processes=1, **LIMITS) as sandbox:
            sandbox("print()")
            self.environment = Programs(self.programs, sandbox, threads=None)
            start = time.perf_counter()
            self.engine.load.start()
            for begin in range(0, len(self.conversations), SLOTS):
                batch = self.conversations[begin : begin + SLOTS]
                play_batch(batch, Barrier(self.engine), self.environment, self.play)
            self.engine.load.stop()
            return len(self.conversations) / (time.perf_counter() - start)

    def warm_up(self) -> None:
        """Play a few conversations, which takes longer at the first time."""
        self.conversations = self.all[:SLOTS]
        self.continuously()
        self.conversations = self.all


def measure(count: int = 320, repeats: int = 3) -> list[dict[str, Any]]:
    """Return the results of this part."""
    ours, peer, running, running_of_peer = [], [], [], []

    with tempfile.TemporaryDirectory() as folder:
        sides = Sides(folder, count)
        sides.warm_up()
        for _ in range(repeats):
            ours.append(sides.continuously())
            running.append(sides.engine.load.mean / SLOTS)
            peer.append(sides.with_barriers())
            running_of_peer.append(sides.engine.load.mean / SLOTS)

    version = sides.engine.version["vllm"]
    return [
        results.comparison("continuous_feeding", ours, peer, "answers/s", "batches with a barrier per turn", version),
        results.value("running_requests", running, "of max_num_seqs"),
        results.value("running_requests_of_batches", running_of_peer, "of max_num_seqs"),
    ]
