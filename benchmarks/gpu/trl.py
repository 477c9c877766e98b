"""SFT and DPO beside TRL's trainers: the same rows, weights, arithmetic and updates, in the same minutes.

TRL packs rows without padding only with FlashAttention. Without that package it trains on padded batches, sorted by
length, which the name of the figure tells.
"""

import importlib.util
from typing import Any

from benchmarks.gpu.fast import forget_memory, peak_gib, training_settings
from benchmarks.gpu.setting import LARGE, Bench, Row, lengths_of, make_rows, save_checkpoint, with_logps
from benchmarks.training import TRL, clocked, trl_trainer
from workflow_scripts.training.trainer import prepare

UPDATES = 4
REPEATS = 2  # the first warms up: the best counts


def measure(bench: Bench) -> None:
    name = "qwen2.5-1.5b" if bench.shape == "full" else "tiny"
    config = LARGE[name] if name in LARGE else bench.sizes.models[name]
    _, model = save_checkpoint(bench.scratch / name, config, bench.device)
    batch = 16 if bench.shape == "full" else 4
    longest = min(2048, bench.sizes.longest)

    rows = with_logps(make_rows(batch * UPDATES, config.vocab_size, bench.sizes.median, longest), config.vocab_size)
    pairs = as_pairs(rows)
    compare(bench, "SFT", model, rows, batch)
    if bench.has_time(60 if name in LARGE else 5, "DPO"):
        compare(bench, "DPO", model, pairs, batch)


def as_pairs(rows: list[Row]) -> list[Row]:
    """Return the rows as preference pairs, whose two answers share a prompt."""
    pairs = []
    for number, row in enumerate(rows):
        prompt = rows[number - number % 2]["prompt_tokens"]
        pairs.append(row | {"prompt_tokens": prompt, "pair": number // 2})
    return pairs


def compare(bench: Bench, kind: str, model: str, rows: list[Row], batch: int) -> None:
    """Train in turns with both and record their speeds."""
    options, how = trl_options(bench, kind, batch)
    tokens = sum(lengths_of(rows))
    speeds: dict[str, list[float]] = {"ours": [], "TRL": []}
    memory: dict[str, float] = {}

    for _ in range(REPEATS):
        for side in speeds:
            forget_memory(bench.device)
            trainer = ours(bench, kind, model, rows, batch) if side == "ours" else None
            if trainer is None:
                state = str(bench.scratch / "trl")
                trainer = trl_trainer(kind, model, rows, state, **options)
            speeds[side].append(tokens / clocked(trainer))  # updates only: no reference is computed meanwhile
            memory[side] = peak_gib(bench.device)
            del trainer

    best = {side: max(values) for side, values in speeds.items()}
    bench.results.measurement(f"{kind}: ours", best["ours"], "tokens/s", memory_gib=memory["ours"])
    bench.results.measurement(f"{kind}: TRL {TRL}, {how}", best["TRL"], "tokens/s", memory_gib=memory["TRL"])
    bench.results.measurement(f"{kind}: ours over TRL", best["ours"] / best["TRL"], "times", repeats=REPEATS)


def ours(bench: Bench, kind: str, model: str, rows: list[Row], batch: int) -> Any:
    """Return our trainer."""
    changes: dict[str, Any] = {"objective": kind.lower(), "batch_size": batch // (2 if kind == "DPO" else 1)}
    changes |= {"nll_weight": 0.0} if kind == "DPO" else {}
    settings = training_settings(bench, rows, **changes)
    return prepare(model, rows, settings, temperature=1.0, seed=0, state=str(bench.scratch / "ours"), pad=0)


def trl_options(bench: Bench, kind: str, batch: int) -> tuple[dict[str, Any], str]:
    """Return the settings of TRL's trainer that suit this device best, and their name."""
    has_flash = bench.device == "cuda" and importlib.util.find_spec("flash_attn") is not None
    options: dict[str, Any] = {
        "bf16": True,
        "use_cpu": bench.device == "cpu",
        "max_steps": UPDATES,
        "per_device_train_batch_size": batch // (2 if kind == "DPO" else 1),
        "dataloader_pin_memory": bench.device == "cuda",
    }

    if kind == "DPO":
        options["precompute_ref_log_probs"] = True
    if has_flash:
        options["attention"] = "flash_attention_2"
    if has_flash and kind == "SFT":
        options["padding_free"] = True
        return options, "padding-free"
    if kind == "SFT":  # rows of pairs have no one length that it could sort by
        options["train_sampling_strategy"] = "group_by_length"
        return options, "padded, by length"
    return options, "padded, precomputed reference"
