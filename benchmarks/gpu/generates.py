"""Measure the speed of the engines and the share of their slots in use, with answers of lognormal lengths.

Random weights seldom end an answer, so each request's own limit of tokens sets its length.
"""

import importlib.util
from typing import Any

import torch

from benchmarks.gpu.setting import LARGE, Bench, lognormal_lengths, now, save_checkpoint
from workflow_scripts import engines
from workflow_scripts.engines import Completion, Request

BATCH = 64  # conversations that the transformers engine holds at a time
SAMPLING = {"temperature": 1.0, "top_p": 1.0, "top_k": 0}


def measure(bench: Bench) -> None:
    name = "qwen2.5-1.5b" if bench.shape == "full" else "tiny"
    config = LARGE[name] if name in LARGE else bench.sizes.models[name]
    _, model = save_checkpoint(bench.scratch / name, config, bench.device, torch.bfloat16)
    requests = make_requests(bench, config.vocab_size)

    measure_engine(bench, "transformers", model, requests, min(BATCH, len(requests) // 2))
    if importlib.util.find_spec("vllm") is None:
        bench.results.note("vllm", "left out: it is not installed in this Python")
    elif bench.has_time(90 if name in LARGE else 30, "vllm"):
        measure_engine(bench, "vllm", model, requests, len(requests))


def make_requests(bench: Bench, vocabulary: int) -> list[Request]:
    """Return requests whose answers have lognormal lengths. Eight samples share a prompt, as in a round."""
    generator = torch.Generator().manual_seed(0)
    sizes = bench.sizes
    lengths = lognormal_lengths(sizes.answers, sizes.answer_median, sizes.answer_longest)
    prompts = torch.randint(5, vocabulary, (sizes.answers // 8 + 1, sizes.answer_median // 2), generator=generator)
    return [Request(prompts[i // 8].tolist(), seed=i, max_tokens=length) for i, length in enumerate(lengths)]


def measure_engine(bench: Bench, name: str, model: str, requests: list[Request], batch: int) -> None:
    """Record the speed of an engine, and check that its answers are whole.

    `batch` is how many requests it receives at a time.
    """
    settings: dict[str, Any] = {"threads": torch.get_num_threads(), "dtype": "bfloat16"}
    engine = engines.load(name, model=model, settings=settings, sampling=SAMPLING, stop=[])
    if bench.shape == "full":
        engine.generate(requests[:8])  # warms up

    completions: list[Completion] = []
    slot_steps = 0
    start = now()
    for begin in range(0, len(requests), batch):
        part = requests[begin : begin + batch]
        answers = engine.generate(part)
        completions += answers
        slot_steps += len(part) * max(len(answer.tokens) for answer in answers)
    seconds = now() - start

    tokens = sum(len(answer.tokens) for answer in completions)
    bench.results.measurement(f"{name}: answers", len(completions) / seconds, "answers/s", batch=batch)
    bench.results.measurement(f"{name}: tokens", tokens / seconds, "tokens/s", tokens=tokens)
    if name == "transformers":
        bench.results.measurement(f"{name}: slots in use", tokens / slot_steps, "of a batch's steps")

    check_answers(bench, name, requests, completions)


def check_answers(bench: Bench, name: str, requests: list[Request], completions: list[Completion]) -> None:
    """Check that each answer ends as it says, and has a log-prob for each token."""
    wrong = abs(len(requests) - len(completions))

    for request, answer in zip(requests, completions):
        is_full = len(answer.tokens) == request.max_tokens
        has_ended = answer.finish == "eos" or (answer.finish == "length" and is_full)
        has_logps = len(answer.logps) == len(answer.tokens) and max(answer.logps, default=1.0) <= 1e-6
        wrong += not (has_ended and has_logps)

    bench.results.check(f"{name}: wrong answers", wrong, 0, "answers end at their limit or their end token")
