"""The setting of the parts: device, sizes, models with random weights, and rows of lognormal lengths."""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen3Config, set_seed

from benchmarks.gpu.results import Results
from workflow_scripts.core.checkpoint import publish

Row = dict[str, Any]

FAMILIES = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}
LARGE = {
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
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
    ),
}


@dataclass(frozen=True)
class Sizes:
    """Sizes of the measurements of one shape."""

    models: dict[str, Any]  # name → configuration, smallest first
    rows: int  # rows that are scored and trained on
    median: int  # of their lengths in tokens
    longest: int
    budget: int  # tokens per bin
    answers: int  # answers that are generated
    answer_median: int
    answer_longest: int


def small_config(family: str, tied: bool, **changes: Any) -> Any:
    """Return the configuration of a small model with the published shapes' features: grouped queries, wide heads."""
    sizes = {
        "vocab_size": 1024,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "max_position_embeddings": 4096,
        "initializer_range": 0.1,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "tie_word_embeddings": tied,
    }
    return FAMILIES[family](**sizes | changes)


SIZES = {
    "tiny": Sizes({"tiny": small_config("llama", tied=True)}, 32, 60, 400, 1024, 24, 12, 48),
    "full": Sizes(LARGE, 256, 500, 8000, 16384, 256, 300, 1024),
}


@dataclass
class Bench:
    """The setting that a part receives."""

    device: str  # cuda or cpu
    shape: str  # full or tiny
    scratch: Path  # a folder that is deleted when the part ends
    results: Results
    until: float  # Unix time at which the part should have ended

    @property
    def sizes(self) -> Sizes:
        return SIZES[self.shape]

    def has_time(self, seconds: float, name: str) -> bool:
        """Return whether a measurement of about so many seconds still fits; if not, note that it was left out."""
        left = self.until - time.time()
        if seconds > left:
            self.results.note(name, f"left out: it takes about {seconds:.0f} s, and {max(0, left):.0f} s are left")
        return seconds <= left


def now() -> float:
    """Return the time in seconds, once the device has done its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


# ---------------------------------------------------------------- models


def random_model(config: Any, device: str, dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    """Return a model with random weights, the same each time. Biases and norms are random too, so that they count."""
    set_seed(0)
    with torch.device(device):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype, **options)

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return model


def tokenizer_of(vocabulary: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer of words: w0, w1 and so on."""
    from tokenizers import Tokenizer, models

    words = {f"w{number}": number for number in range(vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="w1", pad_token="w1")


def save_checkpoint(folder: Path, config: Any, device: str, dtype: torch.dtype = torch.float32) -> tuple[str, str]:
    """Publish a model with random weights as a checkpoint; return (its checkpoint.json, the folder of its weights).

    Large models are saved in bf16, as their publishers do.
    """

    def save(place: Path) -> None:
        random_model(config, device, dtype).save_pretrained(place)
        tokenizer_of(config.vocab_size).save_pretrained(place)

    output = folder / "checkpoint.json"
    publish(output, save, {})
    return str(output), str(folder / "model")


# ---------------------------------------------------------------- rows


def lognormal_lengths(count: int, median: int, longest: int, seed: int = 0) -> list[int]:
    """Return lognormal lengths (σ 0.8)."""
    lengths = np.random.default_rng(seed).lognormal(math.log(median), 0.8, count)
    return np.clip(lengths, 4, longest).astype(int).tolist()


def make_rows(count: int, vocabulary: int, median: int, longest: int, holes: bool = False) -> list[Row]:
    """Return rows, half of each prompt, with advantages of both signs. `holes` puts zeros into masks, as tools do."""
    rng = np.random.default_rng(0)
    rows = []

    for number, length in enumerate(lognormal_lengths(count, median, longest)):
        ids = rng.integers(5, vocabulary, length).tolist()
        half = length // 2
        mask = [1] * (length - half)
        if holes:
            mask = [1, *rng.integers(0, 2, length - half - 1).tolist()]

        rows.append(
            {
                "uid": f"r{number}",
                "prompt_tokens": ids[:half],
                "tokens": ids[half:],
                "mask": mask,
                "advantage": 1.0 - 2 * (number % 2),
                "reward": number % 2,
            }
        )

    return rows


def lengths_of(rows: list[Row]) -> list[int]:
    """Return the number of tokens of each row."""
    return [len(row["prompt_tokens"]) + len(row["tokens"]) for row in rows]


def sampled_of(rows: list[Row]) -> int:
    """Return the number of sampled tokens of all rows."""
    return sum(sum(row["mask"]) for row in rows)


def with_logps(rows: list[Row], vocabulary: int) -> list[Row]:
    """Return rows with stored log-probs of a uniform policy, for measurements of speed."""
    uniform = -math.log(vocabulary)
    made = []

    for row in rows:
        stored = np.full(sum(row["mask"]), uniform, np.float32)
        made.append(row | {"foreign": False, "behaviour_logps": stored, "reference_logps": stored})

    return made
