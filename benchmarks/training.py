"""Scoring and training beside the padded way and beside TRL: the same rows, models and arithmetic (fp32, one thread).

    python -m benchmarks.training                  # everything: about 30 minutes
    python -m benchmarks.training --only head      # one shape (head, body), or memory
    python -m benchmarks.training --only body --few    # in a tenth of the time, to see that it runs

Lengths are lognormal (median 150 tokens, σ 0.8), half of them prompt. `head` is a Llama of width 256 with 4 layers and
a vocabulary of 32k, `body` one of width 512 with 8 layers and 4k: its head has 7 % of the parameters, like that of a
model of 7 billion with a vocabulary of 152k. Both sides take turns, the first turn is not counted, and `interval` is
the range of the ratios of the others. TRL at its best (`…_best`) gets batches whose rows are neighbours by length among
1,024 rows, so that hardly anything is padded; ours gets the same rows. `of_gemm` is the share of this machine's own
matrix product that the useful operations of ours reach: real tokens, sampled head rows, causal attention.
"""

import argparse
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, set_seed

from benchmarks.common import Clock, gemm_flops, in_turn, publish, row
from workflow_scripts.config.sections import Train
from workflow_scripts.training import bins
from workflow_scripts.training.flops import forward_flops
from workflow_scripts.training.logps import load_policy, sampled_logps
from workflow_scripts.training.trainer import prepare

SHAPES = {
    "head": {"hidden_size": 256, "num_hidden_layers": 4, "vocab_size": 32_000, "intermediate_size": 704},
    "body": {"hidden_size": 512, "num_hidden_layers": 8, "vocab_size": 4_000, "intermediate_size": 1408},
    "memory": {"hidden_size": 256, "num_hidden_layers": 4, "vocab_size": 152_000, "intermediate_size": 704},
}
BATCH = 8
UPDATES = 3
REPEATS = 3
POOL = 1024  # rows that batches of neighbours by length are drawn from
TRL = version("trl")

Row = dict[str, Any]
Select = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # logits and targets → log-probs


def make_model(folder: Path, shape: str) -> str:
    """Save a Llama with random weights and return its folder."""
    set_seed(0)
    config = LlamaConfig(num_attention_heads=8, max_position_embeddings=4096, **SHAPES[shape])
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


def make_rows(count: int, vocabulary: int, pairs: bool = False) -> list[Row]:
    """Return rows with stored log-probs; with `pairs`, two rows share a prompt, as preference pairs do."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(math.log(150), 0.8, count), 8, 2000).astype(int)
    rows: list[Row] = []

    for number, length in enumerate(lengths):
        prompt = rng.integers(5, vocabulary, length // 2).tolist()
        if pairs and number % 2:
            prompt = rows[-1]["prompt_tokens"]
        tokens = rng.integers(5, vocabulary, length - length // 2).tolist()
        stored = np.full(len(tokens), -math.log(vocabulary), np.float32)
        made = {
            "prompt_tokens": prompt,
            "tokens": tokens,
            "mask": [1] * len(tokens),
            "foreign": False,
            "behaviour_logps": stored,
            "reference_logps": stored,
            "advantage": 1.0 - 2 * (number % 2),
        }
        rows.append(made | ({"pair": number // 2} if pairs else {}))

    return rows


def neighbours(rows: list[Row], size: int) -> list[Row]:
    """Return some batches of rows that are neighbours by length, drawn from all rows. Pairs stay together."""
    units = [rows[start : start + size] for start in range(0, len(rows), size)]
    units.sort(key=lambda unit: max(count(unit)[0]))
    per_batch = BATCH // size
    batches = [units[start : start + per_batch] for start in range(0, len(units) - per_batch + 1, per_batch)]
    chosen = np.random.default_rng(1).choice(len(batches), UPDATES, replace=False)
    return [example for number in chosen for unit in batches[number] for example in unit]


def against(ours: Callable[[], float], peer: Callable[[], float]) -> tuple[float, float, list[float]]:
    """Return the medians of the seconds of both, and the range of how many times faster ours is."""
    turns = in_turn(ours, peer, REPEATS + 1)[1:]
    of_ours, of_peer = zip(*turns)
    ratios = [theirs / mine for mine, theirs in turns]
    return statistics.median(of_ours), statistics.median(of_peer), [min(ratios), max(ratios)]


def count(rows: list[Row]) -> tuple[list[int], int]:
    """Return the tokens of each row, and the sampled tokens of all rows."""
    lengths = [len(row["prompt_tokens"]) + len(row["tokens"]) for row in rows]
    return lengths, sum(len(row["tokens"]) for row in rows)


def clocked(trainer: Any) -> float:
    """Train and return the seconds of all updates."""
    clock = Clock()
    trainer.add_callback(clock)
    trainer.train()
    assert clock.begin is not None
    return clock.ends[-1] - clock.begin


def ours(folder: str, rows: list[Row], **changes: Any) -> float:
    """Return the seconds of all updates of our trainer."""
    settings = Train(**{"lr": 1e-5, "batch_size": BATCH, "tokens_per_bin": 2048, "warmup": 0} | changes)
    with tempfile.TemporaryDirectory() as state:
        return clocked(prepare(folder, rows, settings, temperature=1.0, seed=0, state=state, pad=0))


# ---------------------------------------------------------------- the peers


def padded(rows: list[Row]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return input_ids, attention_mask and completion mask [B, longest], padded on the right."""
    longest = max(count(rows)[0])
    ids, mask, sampled = (torch.zeros(len(rows), longest, dtype=torch.long) for _ in range(3))

    for i, example in enumerate(rows):
        prompt = example["prompt_tokens"]
        whole = prompt + example["tokens"]
        ids[i, : len(whole)] = torch.tensor(whole)
        mask[i, : len(whole)] = 1
        sampled[i, len(prompt) : len(whole)] = 1

    return ids, mask, sampled


def padded_logps(model: Any, rows: list[Row], select: Select) -> torch.Tensor:
    """Return log-probs [B, longest - 1] from all logits of a padded batch."""
    ids, mask, _ = padded(rows)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
    return select(logits, ids[:, 1:])


def log_softmax_gather(logits: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return logits.log_softmax(-1).gather(-1, index[..., None])[..., 0]


def trl_trainer(
    kind: str, folder: str, rows: list[Row], state: str, attention: str | None = None, **options: Any
) -> Any:
    """Return TRL's SFTTrainer or DPOTrainer in our arithmetic: fp32, no gradient checkpointing."""
    import trl
    from datasets import Dataset

    common = {
        "output_dir": state,
        "per_device_train_batch_size": BATCH // (2 if kind == "DPO" else 1),
        "max_steps": UPDATES,
        "learning_rate": 1e-5,
        "bf16": False,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_strategy": "no",
        "max_length": None,
        **options,
    }
    data: list[Row] = []

    if kind == "SFT":
        for example in rows:
            prompt, answer = example["prompt_tokens"], example["tokens"]
            data.append({"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer})
        config, trainer = trl.SFTConfig(**common), trl.SFTTrainer
    else:
        for chosen, rejected in zip(rows[::2], rows[1::2]):
            ids = {"chosen_ids": chosen["tokens"], "rejected_ids": rejected["tokens"]}
            data.append({"prompt_ids": chosen["prompt_tokens"], **ids})

        class Tokenised(trl.DPOTrainer):
            def _prepare_dataset(self, dataset, *_):
                return dataset

        config, trainer = trl.DPOConfig(**common), Tokenised

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention)
    return trainer(model=model, args=config, train_dataset=Dataset.from_list(data), processing_class=tokenizer())


def tokenizer() -> Any:
    """Return a tokenizer: TRL asks for one, though its rows are tokenised already."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="b", pad_token="a")


def trl(kind: str, folder: str, rows: list[Row], **options: Any) -> float:
    """Return the seconds of all updates of TRL's trainer."""
    with tempfile.TemporaryDirectory() as state:
        return clocked(trl_trainer(kind, folder, rows, state, **options))


def recomputed(folder: str, rows: list[Row]) -> float:
    """Return the seconds of the same clipped updates with a KL term, the padded way.

    All logits of padded batches are computed, and the log-probs of behaviour and reference are recomputed.
    """
    policy, reference = (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for _ in range(2))
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-5)
    started = perf_counter()

    for begin in range(0, len(rows), BATCH):
        batch = rows[begin : begin + BATCH]
        with torch.no_grad():
            before = padded_logps(policy, batch, log_softmax_gather)
            of_reference = padded_logps(reference, batch, log_softmax_gather)

        logp = padded_logps(policy, batch, log_softmax_gather)
        sampled = padded(batch)[2][:, 1:].bool()
        advantage = torch.tensor([row["advantage"] for row in batch])[:, None]
        ratio = (logp - before).exp()
        log_r = of_reference - logp
        gain = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
        loss = (0.04 * ratio * (log_r.exp() - 1 - log_r) - gain)[sampled].sum() / sampled.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return perf_counter() - started


# ---------------------------------------------------------------- speed


@torch.no_grad()
def scoring(folder: str, rows: list[Row], shape: str, peak: float) -> list[Row]:
    """Measure the scoring of rows."""
    from trl.trainer.utils import selective_log_softmax

    policy = load_policy(folder, "float32").eval()
    stock = AutoModelForCausalLM.from_pretrained(folder).eval()
    lengths, sampled = count(rows)
    planned = bins.pack(range(len(rows)), lengths, 2048)
    useful = forward_flops(policy, lengths, sampled)

    def mine() -> float:
        started = perf_counter()
        for members in planned:
            sampled_logps(policy, bins.collate([rows[i] for i in members], 0))
        return perf_counter() - started

    def theirs(select: Select) -> float:
        started = perf_counter()
        for begin in range(0, len(rows), BATCH):
            padded_logps(stock, rows[begin : begin + BATCH], select)
        return perf_counter() - started

    peers = {
        "padded": (log_softmax_gather, "transformers, all logits", version("transformers")),
        "trl": (selective_log_softmax, "TRL's selective_log_softmax", TRL),
    }
    results = []
    for name, (select, *named) in peers.items():
        a, b, interval = against(mine, lambda select=select: theirs(select))
        rates = (sum(lengths) / a, sum(lengths) / b)
        more = {"interval": interval, "of_gemm": useful / a / peak}
        results.append(row(f"scoring_vs_{name}_{shape}", *rates, "tokens/s", *named, **more))

    return results


def training(folder: str, shape: str, peak: float) -> list[Row]:
    """Measure training by objective."""
    vocabulary = SHAPES[shape]["vocab_size"]
    model = load_policy(folder, "float32")
    rows = make_rows(BATCH * UPDATES, vocabulary)
    pairs = make_rows(BATCH * UPDATES, vocabulary, pairs=True)
    even_rows = neighbours(make_rows(POOL, vocabulary), 1)
    even_pairs = neighbours(make_rows(POOL, vocabulary, pairs=True), 2)
    results: list[Row] = []

    def measure(
        name: str, data: list[Row], mine: Callable[[], float], theirs: Callable[[], float], peer: str, number: str
    ) -> None:
        lengths, sampled = count(data)
        a, b, interval = against(mine, theirs)
        useful = 3 * forward_flops(model, lengths, sampled) / a / peak
        rates = (sum(lengths) / a, sum(lengths) / b)
        results.append(row(f"{name}_{shape}", *rates, "tokens/s", peer, number, interval=interval, of_gemm=useful))

    def sft(data: list[Row]) -> Callable[[], float]:
        return lambda: ours(folder, data, objective="sft")

    def dpo(data: list[Row]) -> Callable[[], float]:
        return lambda: ours(folder, data, objective="dpo", nll_weight=0, batch_size=BATCH // 2)

    def clip() -> float:
        return ours(folder, rows, objective="clip", kl=0.04)

    def peer(kind: str, data: list[Row], **options: Any) -> Callable[[], float]:
        return lambda: trl(kind, folder, data, **options)

    in_order = {"train_sampling_strategy": "sequential"}
    precomputed = in_order | {"precompute_ref_log_probs": True}
    measure("sft_vs_trl", rows, sft(rows), peer("SFT", rows), "TRL SFTTrainer", TRL)
    best = "TRL SFTTrainer, even batches"
    measure("sft_vs_trl_best", even_rows, sft(even_rows), peer("SFT", even_rows, **in_order), best, TRL)
    measure("dpo_vs_trl", pairs, dpo(pairs), peer("DPO", pairs), "TRL DPOTrainer", TRL)
    best = "TRL DPOTrainer, even batches, precomputed"
    measure("dpo_vs_trl_best", even_pairs, dpo(even_pairs), peer("DPO", even_pairs, **precomputed), best, TRL)

    padded_way = ("padded, both recomputed", version("transformers"))
    measure("off_policy_vs_recompute", rows, clip, lambda: recomputed(folder, rows), *padded_way)
    return results


def whole_rounds(measured: list[Row], shape: str) -> list[Row]:
    """Return a round of 1 and 3 epochs, its scoring included, from the measured rates: seconds per 1,000 tokens."""
    rates = {result["name"]: result for result in measured}
    scoring_time = 1000 / rates[f"scoring_vs_padded_{shape}"]["ours"]
    results = []

    # One scoring pass for the reference; two for behaviour and reference.
    for name, passes in (("dpo_vs_trl", 1), ("off_policy_vs_recompute", 2)):
        rate = rates[f"{name}_{shape}"]
        for epochs in (1, 3):
            mine = passes * scoring_time + epochs * 1000 / rate["ours"]
            peer = epochs * 1000 / rate["peer"]
            named = (rate["peer_name"], rate["peer_version"])
            label = f"round_{name}_{epochs}_epochs_{shape}"
            results.append(row(label, mine, peer, "s per 1,000 tokens", *named, interval=None, of_gemm=None))

    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["head", "body", "memory"], help="one part")
    parser.add_argument("--few", action="store_true", help="one update of four rows, one repeat")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.few:
        global BATCH, UPDATES, REPEATS
        BATCH, UPDATES, REPEATS = 4, 1, 1

    for shape in ("head", "body"):
        if args.only in (None, shape):
            with tempfile.TemporaryDirectory() as folder:
                make_model(Path(folder), shape)
                peak = gemm_flops()
                rows = make_rows(BATCH * UPDATES, SHAPES[shape]["vocab_size"])
                measured = scoring(folder, rows, shape, peak) + training(folder, shape, peak)
            publish("training", measured + whole_rounds(measured, shape))

    if args.only in (None, "memory"):
        subprocess.run([sys.executable, "-m", "benchmarks.training_memory"], check=True)


if __name__ == "__main__":
    main()
