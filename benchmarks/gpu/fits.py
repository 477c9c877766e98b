"""Predicted beside measured memory (workflow_scripts/training/memory.py), and the largest model that fits.

On a CPU the profiler adds up what tensors take.
"""

import gc
from collections.abc import Callable
from itertools import accumulate
from typing import Any
from unittest.mock import patch

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.fast import forget_memory, training_settings
from benchmarks.gpu.setting import LARGE, Bench, Row, lengths_of, make_rows, random_model, small_config, with_logps
from workflow_scripts.logp import score
from workflow_scripts.training.logps import as_policy
from workflow_scripts.training.memory import Shape, scoring_bytes, training_bytes
from workflow_scripts.training.trainer import prepare

TOLERANCE = 0.15
REASON = "share of the measured peak; the allocator's rounding and the kernels' work spaces are not predicted"
SETTINGS = [(dtype, checkpointed, size) for dtype in ("bfloat16", "float32") for checkpointed in (False, True)
            for size in (1, 2)]  # fmt: skip


def measure(bench: Bench) -> None:
    config, budget = shape_of(bench)
    shape = Shape.of(config)

    for dtype, is_checkpointed, times in SETTINGS:
        name = f"training, {dtype}, {times * budget} tokens" + (", checkpointed" if is_checkpointed else "")
        if not bench.has_time(12, name):
            continue

        rows = full_bins(config.vocab_size, times * budget)
        predicted = training_bytes(
            shape,
            sum(lengths_of(rows)),
            sum(len(row["tokens"]) for row in rows),
            is_bf16=dtype == "bfloat16",
            is_checkpointed=is_checkpointed,
            device=bench.device,
        )
        measured = peak_of(bench, lambda: train_once(bench, config, rows, dtype, is_checkpointed))  # noqa: B023
        compare(bench, name, predicted, measured)

    for dtype in ("bfloat16", "float32"):
        rows = full_bins(config.vocab_size, budget)
        sampled = sum(len(row["tokens"]) for row in rows)
        predicted = scoring_bytes(shape, budget, sampled, is_bf16=dtype == "bfloat16", device=bench.device)
        measured = peak_of(bench, lambda: score_once(bench, config, rows, dtype))  # noqa: B023
        compare(bench, f"scoring, {dtype}, {budget} tokens", predicted, measured)

    largest(bench)


def shape_of(bench: Bench) -> tuple[Any, int]:
    """Return the model and the tokens per bin that memory is measured with."""
    if bench.shape == "full":
        return LARGE["qwen2.5-1.5b"], 6144
    return small_config("llama", tied=False, vocab_size=4096), 256


def full_bins(vocabulary: int, budget: int, count: int = 1) -> list[Row]:
    """Return rows that fill so many bins, eight rows in each."""
    rows = make_rows(8 * count, vocabulary, budget // 8, budget // 8)
    for row in rows:
        ids = (row["prompt_tokens"] + row["tokens"]) * (budget // 8)
        half = budget // 16
        row |= {"prompt_tokens": ids[:half], "tokens": ids[half : 2 * half], "mask": [1] * half}
    return with_logps(rows, vocabulary)


def compare(bench: Bench, name: str, predicted: float, measured: float) -> None:
    """Record a prediction and check it."""
    bench.results.measurement(f"{name}: measured", measured / 2**30, "GiB", predicted=predicted / 2**30)
    error = abs(predicted - measured) / measured
    bench.results.check(f"{name}: prediction", error, TOLERANCE, REASON)


# ---------------------------------------------------------------- measuring


def peak_of(bench: Bench, work: Callable[[], None]) -> float:
    """Return the most bytes that tensors took during the work, beyond what was there before."""
    forget_memory(bench.device)
    if bench.device == "cuda":
        before = torch.cuda.memory_allocated()
        work()
        return torch.cuda.max_memory_allocated() - before

    return peak_on_cpu(work)


def peak_on_cpu(work: Callable[[], None]) -> float:
    """Return the most bytes that tensors on the CPU took during the work, as the profiler adds them up."""
    gc.collect()  # what is freed during the work would count against it
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    results: Any = profiled.profiler.kineto_results  # type: ignore[union-attr]
    changes = [event for event in results.events() if event.name() == "[memory]"]
    return max(accumulate(event.nbytes() for event in sorted(changes, key=lambda event: event.start_ns())))


def made_policy(bench: Bench, config: Any, dtype: torch.dtype = torch.float32) -> Any:
    """Return a policy with random weights, made on the device."""
    model = random_model(config, bench.device, dtype, attn_implementation="segments")
    model.config.use_cache = False
    return as_policy(model, "random weights", tolerance=1e-4 if dtype == torch.float32 else 1.0)  # bf16 rounds


def train_once(bench: Bench, config: Any, rows: list[Row], dtype: str, is_checkpointed: bool) -> None:
    """Make two updates of two bins each: the second has the optimizer's moments from its beginning."""
    twice = [row | {"uid": f"{row['uid']}-{number}"} for number in range(2) for row in rows]
    settings = training_settings(
        bench,
        twice,
        batch_size=len(twice),
        epochs=2,
        tokens_per_bin=sum(lengths_of(rows)),
        max_length=100_000,
        dtype=dtype,
        gradient_checkpointing=is_checkpointed,
    )
    with patch("workflow_scripts.training.trainer.load_policy", lambda *_: made_policy(bench, config)):
        trainer = prepare("", twice, settings, temperature=1.0, seed=0, state=str(bench.scratch / "state"), pad=0)
    trainer.args.save_strategy = "no"
    trainer.train()


def score_once(bench: Bench, config: Any, rows: list[Row], dtype: str) -> None:
    """Score one bin."""
    score(made_policy(bench, config, getattr(torch, dtype)).eval(), rows, 1.0)


# ---------------------------------------------------------------- the largest model


def largest(bench: Bench) -> None:
    """Predict the largest model of Llama-3.1-8B's width that trains and that scores here, and try it.

    The model at nine tenths of the predicted number of layers must work. On a CPU, one tenth of that is tried, of a
    small width.
    """
    free = torch.cuda.mem_get_info()[0] if bench.device == "cuda" else 2**26
    base = LARGE["llama-3.1-8b"] if bench.device == "cuda" and bench.shape == "full" else shape_of(bench)[0]
    budget = 4096 if bench.shape == "full" else 256
    rows = full_bins(base.vocab_size, budget)
    sampled = budget // 2

    def training(shape: Shape) -> float:
        return training_bytes(shape, budget, sampled, is_bf16=True, is_checkpointed=True, device=bench.device)

    def scoring(shape: Shape) -> float:
        return scoring_bytes(shape, budget, sampled, is_bf16=True, device=bench.device)

    works: dict[str, tuple[Callable[[Shape], float], Callable[[Any], None]]] = {
        "trains": (training, lambda config: train_once(bench, config, rows, "bfloat16", True)),
        "scores": (scoring, lambda config: score_once(bench, config, rows, "bfloat16")),
    }

    for verb, (predict, work) in works.items():
        layers = most_layers(base, predict, 0.9 * free)
        config = base.__class__(**base.to_dict() | {"num_hidden_layers": layers})
        size = Shape.of(config).parameters
        name = f"largest model that {verb}, {layers} layers of width {config.hidden_size}"
        if not bench.has_time(45 if bench.shape == "full" else 5, name):
            continue

        failed = 0.0
        try:
            measured = peak_of(bench, lambda: work(config))  # noqa: B023
            bench.results.measurement(f"{name}: measured", measured / 2**30, "GiB", billions=size / 1e9)
        except torch.OutOfMemoryError:
            failed = 1.0
        bench.results.check(f"{name}: out of memory", failed, 0, "the prediction leaves a tenth of the memory free")


def most_layers(base: Any, predict: Callable[[Shape], float], room: float) -> int:
    """Return the largest number of layers whose prediction is below `room` bytes."""
    layers = 1
    while predict(Shape.of(base.__class__(**base.to_dict() | {"num_hidden_layers": layers + 1}))) < room:
        layers += 1
    return layers
