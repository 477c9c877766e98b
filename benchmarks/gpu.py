"""The training core on one GPU: exactness of the packed path, then tokens/s, MFU and memory of scoring and training.

    python -m benchmarks.gpu                        # both large shapes; an 80 GB card holds the 8B one for scoring
    python -m benchmarks.gpu --shape qwen2.5-1.5b
    python -m benchmarks.gpu --shape tiny           # also without a GPU: whether this script works

Models are initialised at random in the published shapes. Lengths are lognormal (median 500 tokens, σ 0.8), half of them
prompt. MFU is useful operations (real tokens, sampled head rows, causal attention) over the card's dense bf16 peak.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, set_seed

from benchmarks.common import OUT, Clock, now
from workflow_scripts.config.sections import Train
from workflow_scripts.core.files import write_json
from workflow_scripts.training import bins
from workflow_scripts.training.flops import forward_flops, peak_flops
from workflow_scripts.training.logps import load_policy, sampled_logps
from workflow_scripts.training.trainer import prepare

SHAPES = {
    "tiny": LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=1000,
        max_position_embeddings=4096,
    ),
    "qwen2.5-1.5b": Qwen2Config(
        hidden_size=1536,
        intermediate_size=8960,
        num_hidden_layers=28,
        num_attention_heads=12,
        num_key_value_heads=2,
        vocab_size=151936,
        max_position_embeddings=32768,
        tie_word_embeddings=True,
    ),
    "llama-3.1-8b": LlamaConfig(
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128256,
        max_position_embeddings=131072,
    ),
}
PARTS = ("exactness", "scoring", "training")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

Row = dict[str, Any]


def make_rows(count: int, vocabulary: int) -> list[Row]:
    """Return rows with stored log-probs, half of each row prompt."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(500), 0.8, count), 16, 8000).astype(int)
    rows = []

    for number, length in enumerate(lengths):
        ids = rng.integers(5, vocabulary, length).tolist()
        half = length // 2
        rows.append(
            {
                "prompt_tokens": ids[:half],
                "tokens": ids[half:],
                "mask": [1] * (length - half),
                "advantage": 1.0 - 2 * (number % 2),
                "foreign": False,
                "behaviour_logps": np.full(length - half, -np.log(vocabulary), np.float32),
            }
        )

    return rows


def lengths_of(rows: list[Row]) -> list[int]:
    return [len(row["prompt_tokens"]) + len(row["tokens"]) for row in rows]


def on_device(rows: list[Row]) -> dict[str, Any]:
    """Return rows as one bin on the device."""
    inputs = bins.collate(rows, 0)
    return inputs | {name: value.to(DEVICE) for name, value in inputs.items() if isinstance(value, torch.Tensor)}


# ---------------------------------------------------------------- the three parts


@torch.no_grad()
def exactness(folder: str, rows: list[Row], dtype: torch.dtype) -> dict[str, Any]:
    """Return the largest and mean |Δ| between a packed bin and transformers' own forward pass, one row at a time."""
    policy = load_policy(folder, "float32").to(DEVICE, dtype).eval()
    packed = sampled_logps(policy, on_device(rows)).split([sum(row["mask"]) for row in rows])
    stock: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    stock = stock.to(DEVICE).eval()
    differences = []

    for ours, row in zip(packed, rows):
        ids = torch.tensor([row["prompt_tokens"] + row["tokens"]], device=DEVICE)
        logps = stock(input_ids=ids).logits[0, :-1].float().log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
        differences.append((ours - logps[-len(row["tokens"]) :]).abs())

    every = torch.cat(differences)
    return {"dtype": str(dtype), "largest": every.max().item(), "mean": every.mean().item(), "tokens": len(every)}


@torch.no_grad()
def scoring(folder: str, rows: list[Row], budget: int) -> dict[str, float]:
    """Return the speed of scoring; a first bin warms up."""
    policy = load_policy(folder, "float32").to(DEVICE).eval()
    lengths = lengths_of(rows)
    planned = [on_device([rows[i] for i in members]) for members in bins.pack(range(len(rows)), lengths, budget)]

    with torch.autocast(DEVICE, torch.bfloat16):
        sampled_logps(policy, planned[0])
        start = now()
        for inputs in planned:
            sampled_logps(policy, inputs)
        seconds = now() - start

    useful = forward_flops(policy, lengths, sum(sum(row["mask"]) for row in rows))
    return speed(sum(lengths), useful, seconds)


def training(folder: str, rows: list[Row], budget: int, checkpointing: bool) -> dict[str, Any]:
    """Return the speed of the trainer's own updates, AdamW with fp32 masters included; the first one is left out."""
    settings = Train(
        objective="clip",
        lr=1e-6,
        batch_size=len(rows) // 4,
        tokens_per_bin=budget,
        max_length=8192,
        dtype="bfloat16",
        gradient_checkpointing=checkpointing,
        save_steps=10_000,
    )
    with tempfile.TemporaryDirectory() as state:
        trainer = prepare(folder, rows, settings, temperature=1.0, seed=0, state=state, pad=0)
        clock = Clock()
        trainer.add_callback(clock)
        trainer.train()

    plan = trainer.bins.plan
    members = [plan.units[unit][0] for bin_ in plan.bins for unit in bin_.units]
    counted = [rows[i] for i in members[len(members) // len(clock.ends) :]]
    lengths = lengths_of(counted)
    useful = 3 * forward_flops(trainer.model, lengths, sum(sum(row["mask"]) for row in counted))
    result = speed(sum(lengths), useful, clock.ends[-1] - clock.ends[0])
    return result | {"gradient_checkpointing": checkpointing}


def speed(tokens: int, useful: float, seconds: float) -> dict[str, float]:
    """Return tokens and operations per second, and on a known card MFU and the peak of memory."""
    result = {"tokens_per_second": tokens / seconds, "flops_per_second": useful / seconds}
    if peak := peak_flops():
        result["mfu"] = useful / seconds / peak
        result["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        torch.cuda.reset_peak_memory_stats()
    return result


def measure(shape: str, args: argparse.Namespace) -> dict[str, Any]:
    """Return the results of a shape by part."""
    parts = [args.only] if args.only else PARTS
    rows = make_rows(args.rows, SHAPES[shape].vocab_size)
    results: dict[str, Any] = {}

    with tempfile.TemporaryDirectory() as folder:
        set_seed(0)
        with torch.device(DEVICE):
            model: Any = AutoModelForCausalLM.from_config(SHAPES[shape], dtype=torch.float32)
            model.save_pretrained(Path(folder))
        del model

        if "exactness" in parts:
            dtypes = (torch.float32, torch.bfloat16)
            results["exactness"] = [exactness(folder, rows[:8], dtype) for dtype in dtypes]
        if "scoring" in parts:
            results["scoring"] = scoring(folder, rows, args.budget)
        if "training" in parts:
            results["training"] = training(folder, rows, args.budget, checkpointing=shape == "llama-3.1-8b")

    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--shape", action="append", choices=list(SHAPES), help="one or more; both large ones by default"
    )
    parser.add_argument("--rows", type=int, default=256, help="rows that are scored and trained on (default: 256)")
    parser.add_argument("--budget", type=int, default=16384, help="tokens per bin (default: 16384)")
    parser.add_argument("--only", choices=PARTS, help="one part")
    args = parser.parse_args()

    name = torch.cuda.get_device_name() if DEVICE == "cuda" else "CPU"
    result: dict[str, Any] = {"device": name, "torch": torch.__version__}
    for shape in args.shape or ["qwen2.5-1.5b", "llama-3.1-8b"]:
        result[shape] = measure(shape, args)
        print(shape, result[shape], flush=True)

    write_json(OUT / "gpu.json", result)


if __name__ == "__main__":
    main()
