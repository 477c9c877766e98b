"""Measure the speed of scoring and training, as the stages do them, and where their time goes.

MFU is useful operations (real tokens, sampled head rows, causal attention) over the device's dense bf16 peak. On a
device whose peak is unknown, the peak is what its own matrix product reaches.
"""

import gc
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function
from transformers import TrainerCallback

from benchmarks.gpu.setting import (
    Bench,
    Row,
    lengths_of,
    make_rows,
    now,
    sampled_of,
    save_checkpoint,
    with_logps,
)
from workflow_scripts.config.sections import Train
from workflow_scripts.logp import score
from workflow_scripts.training import attention, bins, logps
from workflow_scripts.training.flops import forward_flops, peak_flops
from workflow_scripts.training.logps import load_scorer
from workflow_scripts.training.memory import Shape, training_bytes
from workflow_scripts.training.trainer import prepare

AIMS = {"scoring": 0.55, "training": 0.45}  # MFU at 1.5B
UPDATES = 5  # the first warms up, and the last is profiled


def measure(bench: Bench) -> None:
    peak = peak_flops()
    if peak is None:
        peak = product_flops(bench.device)
        bench.results.measurement("peak, by this device's own bf16 matrix product", peak / 1e12, "TFLOP/s")

    for name, config in bench.sizes.models.items():
        if not bench.has_time(config.hidden_size // 25, name):  # seconds, most of them to write and read the weights
            continue

        rows = with_logps(
            make_rows(bench.sizes.rows, config.vocab_size, bench.sizes.median, bench.sizes.longest), config.vocab_size
        )
        folder = bench.scratch / name
        _, model = save_checkpoint(folder, config, bench.device, torch.bfloat16)
        forget_memory(bench.device)

        measure_scoring(bench, name, model, rows, peak)
        forget_memory(bench.device)
        is_checkpointed = config.hidden_size >= 4096
        if fits(bench, name, config, is_checkpointed):
            measure_training(bench, name, model, rows, peak, is_checkpointed)
        forget_memory(bench.device)


def product_flops(device: str, size: int = 1024) -> float:
    """Return the operations per second of a bf16 matrix product on this device."""
    size = 8192 if device == "cuda" else size
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = []

    for _ in range(8):
        start = now()
        torch.mm(left, right)
        seconds.append(now() - start)

    return 2 * size**3 / statistics.median(seconds)


def forget_memory(device: str) -> None:
    """Free what the models before have left on the device, and forget its peak."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gib(device: str) -> float:
    """Return the most memory that tensors took on the device; 0 on a CPU, which does not count it."""
    return torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0


def fits(bench: Bench, name: str, config: Any, is_checkpointed: bool) -> bool:
    """Return whether a training fits on the device by the prediction; if not, note it."""
    if bench.device == "cpu":
        return True

    budget = bench.sizes.budget
    needed = training_bytes(Shape.of(config), budget, budget, is_bf16=True, is_checkpointed=is_checkpointed)
    free, _ = torch.cuda.mem_get_info()
    if needed > free:
        text = f"left out: predicted to need {needed / 2**30:.0f} GiB, and {free / 2**30:.0f} GiB are free"
        bench.results.note(f"{name}: training", text)
    return needed <= free


def report(bench: Bench, name: str, what: str, tokens: int, useful: float, seconds: float, peak: float) -> None:
    """Record speed and memory, with the share of the peak as an aim at the shape for which there is one."""
    results = bench.results
    share = useful / seconds / peak
    results.measurement(f"{name}: {what}", tokens / seconds, "tokens/s", seconds=seconds, tokens=tokens)

    if name == "qwen2.5-1.5b":
        results.aim(f"{name}: {what}, MFU", share, AIMS[what], "of the peak")
    else:
        results.measurement(f"{name}: {what}, MFU", share, "of the peak")
    if bench.device == "cuda":
        results.measurement(f"{name}: {what}, peak memory", peak_gib(bench.device), "GiB")


# ---------------------------------------------------------------- scoring


def measure_scoring(bench: Bench, name: str, model: str, rows: list[Row], peak: float) -> None:
    """Measure the scoring of all rows, bin by bin, by the function that the stage `logp` calls."""
    policy = load_scorer(model, "bfloat16").to(bench.device)
    lengths = lengths_of(rows)
    planned = [[rows[i] for i in members] for members in bins.pack(range(len(rows)), lengths, bench.sizes.budget)]

    score(policy, planned[0], 1.0)  # warms up
    start = now()
    for members in planned:
        score(policy, members, 1.0)
    seconds = now() - start
    useful = forward_flops(policy, lengths, sampled_of(rows))
    report(bench, name, "scoring", sum(lengths), useful, seconds, peak)

    with Profiled(bench.device) as profiled:
        score(policy, planned[0], 1.0)
    profiled.record(bench, f"{name}: scoring")


# ---------------------------------------------------------------- training


class Clock(TrainerCallback):
    """Notes when updates end, and profiles the last one. Nothing is saved."""

    def __init__(self, device: str):
        self.profiled = Profiled(device)
        self.ends: list[float] = []

    def on_step_begin(self, args, state, control, **_):
        if state.global_step == state.max_steps - 1:
            self.profiled.__enter__()

    def on_step_end(self, args, state, control, **_):
        if state.global_step == state.max_steps:
            self.profiled.__exit__(None, None, None)
        self.ends.append(now())
        control.should_save = False


def training_settings(bench: Bench, rows: list[Row], **changes: Any) -> Train:
    """Return the settings that docs/guides/training.md recommends for one GPU."""
    common: dict[str, Any] = {"objective": "clip", "lr": 1e-6, "dtype": "bfloat16", "save_steps": 10_000}
    common |= {"tokens_per_bin": bench.sizes.budget, "max_length": bench.sizes.longest}
    return Train(**(common | {"batch_size": -(-len(rows) // UPDATES)} | changes))


def measure_training(bench: Bench, name: str, model: str, rows: list[Row], peak: float, is_checkpointed: bool) -> None:
    """Measure the trainer's own updates, the optimizer included; the first and the last are left out."""
    settings = training_settings(bench, rows, gradient_checkpointing=is_checkpointed)
    state = str(bench.scratch / "state")
    trainer = prepare(model, rows, settings, temperature=1.0, seed=0, state=state, pad=0)
    clock = Clock(bench.device)
    trainer.add_callback(clock)
    trainer.train()

    plan = trainer.bins.plan
    per_update = plan.accumulation
    measured = plan.bins[per_update : (plan.updates - 1) * per_update]
    counted = [rows[i] for bin_ in measured for unit in bin_.units for i in plan.units[unit]]
    useful = 3 * forward_flops(trainer.model, lengths_of(counted), sampled_of(counted))
    seconds = clock.ends[-2] - clock.ends[0]
    report(bench, name, "training", sum(lengths_of(counted)), useful, seconds, peak)
    clock.profiled.record(bench, f"{name}: training")


# ---------------------------------------------------------------- where the time goes


class Profiled:
    """Profiles what runs within it, and tells how its time divides into attention, head, optimizer, rest and gaps."""

    def __init__(self, device: str):
        self.device = device
        activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device == "cuda" else [])
        self.profiler = profile(activities=activities)

    def __enter__(self) -> "Profiled":
        self.saved = attention._by_segment, attention.varlen_attn, logps.TokenLogps.forward, logps.TokenLogps.backward
        attention._by_segment = named("attention", attention._by_segment)
        attention.varlen_attn = named("attention", attention.varlen_attn)
        logps.TokenLogps.forward = staticmethod(named("head", logps.TokenLogps.forward))
        logps.TokenLogps.backward = staticmethod(named("head", logps.TokenLogps.backward))
        self.start = now()
        self.profiler.__enter__()
        return self

    def __exit__(self, *arguments: Any) -> None:
        self.seconds = now() - self.start
        self.profiler.__exit__(*arguments)
        attention._by_segment, attention.varlen_attn, forward, backward = self.saved
        logps.TokenLogps.forward = staticmethod(forward)
        logps.TokenLogps.backward = staticmethod(backward)

    def shares(self) -> dict[str, float]:
        """Return the seconds of each kind of work. Gaps are when the device had nothing to do."""
        kind = "device" if self.device == "cuda" else "cpu"
        events = list(self.profiler.key_averages())

        def total(matches: Callable[[str], bool]) -> float:
            of_host = [event for event in events if event.device_type == DeviceType.CPU and matches(event.key)]
            return sum(getattr(event, f"{kind}_time_total") for event in of_host) / 1e6

        busy = sum(getattr(event, f"self_{kind}_time_total") for event in events if is_work(event, kind)) / 1e6
        seconds = {
            "attention": total(lambda key: key == "attention" or is_backward_of_attention(key)),
            "head": total(lambda key: key == "head"),
            "optimizer": total(lambda key: key.startswith("Optimizer.step")),
        }
        seconds["rest"] = max(0.0, busy - sum(seconds.values()))
        if self.device == "cuda":
            seconds["gaps"] = max(0.0, self.seconds - busy)
        return seconds

    def record(self, bench: Bench, name: str) -> None:
        """Record the share of each kind of work."""
        seconds = self.shares()
        whole = sum(seconds.values()) or 1.0
        for kind, part in seconds.items():
            bench.results.measurement(f"{name}, share of {kind}", part / whole, "of the time", seconds=part)

        sort = f"self_{'device' if self.device == 'cuda' else 'cpu'}_time_total"
        table = self.profiler.key_averages().table(sort_by=sort, row_limit=40)
        file = bench.results.folder / f"profile-{name.replace(': ', '-')}.txt"
        file.write_text(table + "\n")


def named(name: str, function: Callable) -> Callable:
    """Return a function whose calls the profiler shows under this name."""

    def wrapped(*arguments: Any, **options: Any) -> Any:
        with record_function(name):
            return function(*arguments, **options)

    return wrapped


def is_work(event: Any, kind: str) -> bool:
    """Return whether an event's own time counts as work. On CUDA only kernels do, not the ranges that were named."""
    return kind == "cpu" or (event.device_type == DeviceType.CUDA and not event.is_user_annotation)


def is_backward_of_attention(key: str) -> bool:
    """Return whether a name is that of the autograd node of attention."""
    is_node = key.startswith("autograd::engine::evaluate_function")
    return is_node and any(word in key.lower() for word in ("attention", "varlen"))
