"""Scoring and training beside the padded way and beside TRL: the same rows, models and arithmetic (fp32, one thread).

    python -m benchmarks.training                  # everything: about 20 minutes
    python -m benchmarks.training --only head      # one shape (head, body), or memory

Lengths are lognormal (median 150 tokens, σ 0.8), half of them prompt. `head` is a Llama of width 256 with 4 layers and
a vocabulary of 32k, `body` one of width 512 with 8 layers and 4k. `of_gemm` is the share of this machine's own matrix
product that the useful operations of ours reach: real tokens, sampled head rows, causal attention.
"""

import argparse
import math
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from unittest.mock import patch

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, set_seed

from benchmarks.common import Clock, gemm_flops, interleaved, publish, row
from workflow_scripts.core.sections import Train
from workflow_scripts.training import bins
from workflow_scripts.training.flops import forward_flops
from workflow_scripts.training.logps import load_policy, sampled_logps
from workflow_scripts.training.trainer import prepared

SHAPES = {
    "head": {"hidden_size": 256, "num_hidden_layers": 4, "vocab_size": 32_000, "intermediate_size": 704},
    "body": {"hidden_size": 512, "num_hidden_layers": 8, "vocab_size": 4_000, "intermediate_size": 1408},
    "memory": {"hidden_size": 256, "num_hidden_layers": 4, "vocab_size": 152_000, "intermediate_size": 704},
}
BATCH, UPDATES = 8, 3
TRL = version("trl")


def make_model(folder: Path, shape: str) -> str:
    set_seed(0)
    config = LlamaConfig(num_attention_heads=8, max_position_embeddings=4096, **SHAPES[shape])
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


def make_rows(count: int, vocabulary: int, pairs: bool = False) -> list[dict]:
    """Rows with stored log-probs; as preference pairs two rows share a prompt."""
    rng, rows = np.random.default_rng(0), []
    lengths = np.clip(rng.lognormal(math.log(150), 0.8, count), 8, 2000).astype(int)
    for number, length in enumerate(lengths):
        prompt = rng.integers(5, vocabulary, length // 2).tolist()
        if pairs and number % 2:
            prompt = rows[-1]["prompt_tokens"]
        tokens = rng.integers(5, vocabulary, length - length // 2).tolist()
        stored = np.full(len(tokens), -math.log(vocabulary), np.float32)
        rows.append({"prompt_tokens": prompt, "tokens": tokens, "mask": [1] * len(tokens), "foreign": False}
                    | {"behaviour": stored, "reference": stored, "advantage": 1.0 - 2 * (number % 2)}
                    | ({"pair": number // 2} if pairs else {}))  # fmt: skip
    return rows


def count(rows: list[dict]) -> tuple[list[int], int]:
    """Tokens of each row, and sampled tokens of all."""
    return [len(r["prompt_tokens"]) + len(r["tokens"]) for r in rows], sum(len(r["tokens"]) for r in rows)


def clocked(trainer) -> float:
    clock = Clock()
    trainer.add_callback(clock)
    trainer.train()
    return clock.ends[-1] - clock.begin


def ours(folder: str, rows: list[dict], **settings) -> float:
    given = Train(**{"lr": 1e-5, "batch_size": BATCH, "tokens_per_bin": 2048, "warmup": 0} | settings)
    with tempfile.TemporaryDirectory() as state:
        return clocked(prepared(folder, rows, given, temperature=1.0, seed=0, state=state, pad=0))


# ---------------------------------------------------------------- the peers


def padded(rows: list[dict]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """input_ids, attention_mask and completion mask [B, longest], padded on the right."""
    longest = max(count(rows)[0])
    ids, mask, sampled = (torch.zeros(len(rows), longest, dtype=torch.long) for _ in range(3))
    for i, one in enumerate(rows):
        whole = one["prompt_tokens"] + one["tokens"]
        ids[i, : len(whole)], mask[i, : len(whole)] = torch.tensor(whole), 1
        sampled[i, len(one["prompt_tokens"]) : len(whole)] = 1
    return ids, mask, sampled


def padded_logps(model, rows: list[dict], select) -> torch.Tensor:
    """Log-probs [B, longest - 1] from all logits of a padded batch."""
    ids, mask, _ = padded(rows)
    return select(model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float(), ids[:, 1:])


def log_softmax_gather(logits: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return logits.log_softmax(-1).gather(-1, index[..., None])[..., 0]


def trl_trainer(kind: str, folder: str, rows: list[dict], state: str, **options):
    """TRL's SFTTrainer or DPOTrainer in our arithmetic: fp32, no gradient checkpointing."""
    import trl
    from datasets import Dataset

    common = dict(
        output_dir=state, per_device_train_batch_size=BATCH // (2 if kind == "DPO" else 1), max_steps=UPDATES,
        learning_rate=1e-5, bf16=False, gradient_checkpointing=False, use_cpu=True, report_to="none",
        disable_tqdm=True, save_strategy="no", logging_strategy="no", max_length=None,
    ) | options  # fmt: skip
    if kind == "SFT":
        data = [
            {"input_ids": r["prompt_tokens"] + r["tokens"], "labels": [-100] * len(r["prompt_tokens"]) + r["tokens"]}
            for r in rows
        ]
        config, trainer = trl.SFTConfig(**common), trl.SFTTrainer
    else:
        data = [
            {"prompt_ids": one["prompt_tokens"], "chosen_ids": one["tokens"], "rejected_ids": other["tokens"]}
            for one, other in zip(rows[::2], rows[1::2])
        ]

        class Tokenised(trl.DPOTrainer):
            def _prepare_dataset(self, dataset, *_):
                return dataset

        config, trainer = trl.DPOConfig(**common), Tokenised
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return trainer(model=model, args=config, train_dataset=Dataset.from_list(data), processing_class=tokenizer())


def tokenizer():
    """TRL asks for one, though its rows are tokenised already."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="b", pad_token="a")


def trl(kind: str, folder: str, rows: list[dict], **options) -> float:
    with tempfile.TemporaryDirectory() as state:
        return clocked(trl_trainer(kind, folder, rows, state, **options))


def recomputed(folder: str, rows: list[dict]) -> float:
    """The same clipped update with a KL term, all logits of padded batches, behaviour and reference recomputed."""
    policy, reference = (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for _ in range(2))
    optimizer, started = torch.optim.AdamW(policy.parameters(), lr=1e-5), perf_counter()
    for begin in range(0, len(rows), BATCH):
        batch = rows[begin : begin + BATCH]
        with torch.no_grad():
            before = padded_logps(policy, batch, log_softmax_gather)
            held = padded_logps(reference, batch, log_softmax_gather)
        logp, sampled = padded_logps(policy, batch, log_softmax_gather), padded(batch)[2][:, 1:].bool()
        advantage = torch.tensor([one["advantage"] for one in batch])[:, None]
        ratio, log_r = (logp - before).exp(), held - logp
        gain = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
        ((0.04 * ratio * (log_r.exp() - 1 - log_r) - gain)[sampled].sum() / sampled.sum()).backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return perf_counter() - started


# ---------------------------------------------------------------- the measurements


@torch.no_grad()
def scoring(folder: str, rows: list[dict], shape: str, peak: float) -> list[dict]:
    from trl.trainer.utils import selective_log_softmax

    policy, stock = load_policy(folder, "float32").eval(), AutoModelForCausalLM.from_pretrained(folder).eval()
    lengths, sampled = count(rows)
    planned = bins.pack(range(len(rows)), lengths, 2048)

    def mine() -> float:
        started = perf_counter()
        for one in planned:
            sampled_logps(policy, bins.collate([rows[i] for i in one], 0))
        return perf_counter() - started

    def theirs(select) -> float:
        started = perf_counter()
        for begin in range(0, len(rows), BATCH):
            padded_logps(stock, rows[begin : begin + BATCH], select)
        return perf_counter() - started

    found, useful = [], forward_flops(policy, lengths, sampled)
    for name, select in (("padded", log_softmax_gather), ("trl", selective_log_softmax)):
        mine(), theirs(select)
        a, b = interleaved(mine, lambda select=select: theirs(select))
        peer = (
            ("transformers, all logits", version("transformers"))
            if name == "padded"
            else ("TRL's selective_log_softmax", TRL)
        )
        found.append(
            row(
                f"scoring_vs_{name}_{shape}",
                sum(lengths) / a,
                sum(lengths) / b,
                "tokens/s",
                *peer,
                of_gemm=useful / a / peak,
            )
        )
    return found


def training(folder: str, shape: str, peak: float) -> list[dict]:
    vocabulary, found = SHAPES[shape]["vocab_size"], []
    model = load_policy(folder, "float32")
    rows = make_rows(BATCH * UPDATES, vocabulary)
    pairs = make_rows(BATCH * UPDATES, vocabulary, pairs=True)
    padded_name = ("padded, both recomputed", version("transformers"))

    def measure(name, data, mine, theirs, peer):
        lengths, sampled = count(data)
        a, b = interleaved(mine, theirs)
        useful = 3 * forward_flops(model, lengths, sampled) / a / peak
        found.append(row(f"{name}_{shape}", sum(lengths) / a, sum(lengths) / b, "tokens/s", *peer, of_gemm=useful))

    def sft():
        return ours(folder, rows, objective="sft")

    def dpo():
        return ours(folder, pairs, objective="dpo", nll_weight=0, batch_size=BATCH // 2)

    def clip():
        return ours(folder, rows, objective="clip", kl=0.04)

    measure("sft_vs_trl", rows, sft, lambda: trl("SFT", folder, rows), ("TRL SFTTrainer", TRL))
    measure("sft_vs_trl_best", rows, sft, lambda: trl("SFT", folder, rows, train_sampling_strategy="group_by_length"),
            ("TRL SFTTrainer, by length", TRL))  # fmt: skip
    measure("dpo_vs_trl", pairs, dpo, lambda: trl("DPO", folder, pairs), ("TRL DPOTrainer", TRL))
    best = {"precompute_ref_log_probs": True}
    measure("dpo_vs_trl_best", pairs, dpo, lambda: trl("DPO", folder, pairs, **best),
            ("TRL DPOTrainer, precomputed", TRL))  # fmt: skip
    measure("off_policy_vs_recompute", rows, clip, lambda: recomputed(folder, rows), padded_name)
    return found


def whole_rounds(found: list[dict], shape: str) -> list[dict]:
    """A round of 1 and 3 epochs, its scoring included, from the rates measured above: seconds per 1,000 tokens."""
    rate, rows = {one["name"]: one for one in found}, []
    scoring = 1000 / rate[f"scoring_vs_padded_{shape}"]["ours"]
    for name, passes in (("dpo_vs_trl", 1), ("off_policy_vs_recompute", 2)):  # reference; behaviour and reference
        one = rate[f"{name}_{shape}"]
        for epochs in (1, 3):
            ours, peer = passes * scoring + epochs * 1000 / one["ours"], epochs * 1000 / one["peer"]
            label = f"round_{name}_{epochs}_epochs_{shape}"
            rows.append(row(label, ours, peer, "s per 1,000 tokens", one["peer_name"], one["peer_version"], of_gemm=""))
    return rows


def peak_memory(kind: str) -> tuple[float, float]:
    """Bytes of a training process of its own: what a step needs beyond what lies there between steps (weights and the
    optimizer's moments), and the whole at its peak, beyond the libraries."""
    command = [sys.executable, "-m", "benchmarks.training", "--measure-memory", kind]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return tuple(map(float, done.stdout.split()[-2:]))


def status(field: str) -> int:
    """A field of /proc/self/status in bytes: VmRSS, or VmHWM, its highest value."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


class Memory(Clock):
    """Forgets the highest value at the beginning of the second step, when the moments are there."""

    def on_step_begin(self, args, state, control, **_):
        super().on_step_begin(args, state, control)
        if state.global_step == 1:
            Path("/proc/self/clear_refs").write_text("5")
            self.between = status("VmRSS")


def measure_memory(kind: str) -> None:
    libraries, memory = status("VmRSS"), Memory()
    with tempfile.TemporaryDirectory() as folder, patch("__main__.Clock", lambda: memory):
        subprocess.run([sys.executable, "-c", MAKE, folder], check=True)  # elsewhere: it needs memory too
        rows = make_rows(BATCH * UPDATES, SHAPES["memory"]["vocab_size"])
        ours(folder, rows, objective="sft") if kind == "ours" else trl("SFT", folder, rows)
        print(status("VmHWM") - memory.between, status("VmHWM") - libraries)


MAKE = (
    "import sys, pathlib; from benchmarks.training import make_model; make_model(pathlib.Path(sys.argv[1]), 'memory')"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["head", "body", "memory"], help="one part")
    parser.add_argument("--measure-memory", choices=["ours", "trl"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.measure_memory:
        measure_memory(args.measure_memory)
        return
    for shape in ("head", "body"):
        if args.only in (None, shape):
            with tempfile.TemporaryDirectory() as folder:
                make_model(Path(folder), shape)
                peak = gemm_flops()
                rows = make_rows(BATCH * UPDATES, SHAPES[shape]["vocab_size"])
                found = scoring(folder, rows, shape, peak) + training(folder, shape, peak)
                publish("training", found + whole_rounds(found, shape))
    if args.only in (None, "memory"):
        mine, theirs = peak_memory("ours"), peak_memory("trl")
        names = ("memory_vs_trl_152k", "memory_whole_process_vs_trl_152k")
        found = [row(name, a, b, "bytes", "TRL SFTTrainer", TRL) for name, a, b in zip(names, mine, theirs)]
        publish("training", found)


if __name__ == "__main__":
    main()
