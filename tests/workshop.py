"""Helpers of the tests of training: a small Llama, rows to train it on, and the stages logp and train run on them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed

from tests.harness import REPOSITORY
from workflow_scripts import logp, train
from workflow_scripts.core.checkpoint import publish
from workflow_scripts.core.files import read_json
from workflow_scripts.core.pickles import write_pickle
from workflow_scripts.core.running.manifest import write_manifest
from workflow_scripts.training import bins
from workflow_scripts.training.logps import sampled_logps

TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
SETTINGS = {"objective": "clip", "lr": 1e-3, "batch_size": 8, "save_steps": 1, "threads": 1}
WORDS = 50  # the vocabulary


class Killed(BaseException):
    """Raised in the middle of a training, where a real one is killed."""


# ---------------------------------------------------------------- model and rows


def small_llama(**changes: Any) -> LlamaForCausalLM:
    """Return a Llama with two blocks and random weights, the same each time."""
    set_seed(0)
    config = LlamaConfig(
        vocab_size=WORDS,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=1,
        initializer_range=0.2,
        **changes,
    )
    return LlamaForCausalLM(config)


def small_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of the model's vocabulary: w0, w1 and so on."""
    from tokenizers import Tokenizer, models

    words = {f"w{i}": i for i in range(WORDS)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w0")), eos_token="w1", pad_token="w1"
    )


def make_rows(count: int = 12, seed: int = 0) -> list[dict[str, Any]]:
    """Return training rows of different lengths, with masks and advantages of both signs."""
    rng = np.random.default_rng(seed)
    rows = []

    for i in range(count):
        length = int(rng.integers(2, 20))
        rows.append(
            {
                "uid": f"r{i}",
                "prompt_tokens": rng.integers(2, WORDS, rng.integers(1, 10)).tolist(),
                "tokens": rng.integers(2, WORDS, length).tolist(),
                "mask": [1, *rng.integers(0, 2, length - 1).tolist()],
                "advantage": float(rng.choice([-1, 1])),
                "policy": "p",
            }
        )

    return rows


def make_pairs(count: int = 8) -> list[dict[str, Any]]:
    """Return the rows of `count` preference pairs, which no policy of ours sampled."""
    rows = []

    for i, row in enumerate(make_rows(2 * count)):
        sign = 1.0 - 2 * (i % 2)
        rows.append(row | {"pair": f"p{i // 2}", "advantage": sign, "policy": "foreign"})

    return rows


# ---------------------------------------------------------------- log-probs


def logps_one_by_one(model: Any, row: dict[str, Any], temperature: float = 1.0) -> torch.Tensor:
    """Return the log-probs of a row's sampled tokens the long way: all logits, by transformers' own forward pass."""
    ids = torch.tensor([row["prompt_tokens"] + row["tokens"]])
    logits = model(input_ids=ids).logits[0, :-1].float() / temperature
    logps = logits.log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
    return logps[len(row["prompt_tokens"]) - 1 :][torch.tensor(row["mask"]) == 1]


def logps_packed(model: Any, rows: list[dict[str, Any]], temperature: float = 1.0) -> tuple[torch.Tensor, ...]:
    """Return the log-probs of each row's sampled tokens, all rows in one bin."""
    flat = sampled_logps(model, bins.collate(rows, 0), temperature)
    return flat.split([sum(row["mask"]) for row in rows])


# ---------------------------------------------------------------- the stages


class Workshop:
    """A small checkpoint and rows that it is trained on, as files."""

    def __init__(self, folder: Path, tied: bool = False):
        self.folder = folder
        self.checkpoint = folder / "start/checkpoint.json"
        self.data = folder / "data.pkl"

        def save(place: Path) -> None:
            small_llama(tie_word_embeddings=tied).save_pretrained(place)
            small_tokenizer().save_pretrained(place)

        self.policy = publish(self.checkpoint, save, {})["digest"]
        rows = make_rows(16)
        self.write([row | {"policy": self.policy, "reward": i % 4 / 3} for i, row in enumerate(rows)])

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Write the rows to train on."""
        write_pickle(self.data, rows)
        write_manifest(self.data, [], {}, rows=len(rows))

    def run(self, stage: ModuleType, *options: Any, launcher: tuple[str, ...] = ()) -> None:
        """Run a stage in this process, or by a launcher in processes of its own."""
        arguments = list(map(str, options))

        if launcher:
            command = [sys.executable, "-m", *launcher, stage.__name__, *arguments]
            done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[-4000:]
            return

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [stage.__name__, *arguments])
            stage.main()

    def logp(
        self,
        checkpoint: Path | None = None,
        name: str = "logp",
        options: tuple[Any, ...] = (),
        launcher: tuple[str, ...] = (),
        **settings: Any,
    ) -> Path:
        """Score the data under a checkpoint and return the log-prob file."""
        path = self.folder / name / "1_0.pkl"
        shutil.rmtree(path.parent, ignore_errors=True)
        arguments = ["--data", self.data, "--model", checkpoint or self.checkpoint, *options]
        self.run(logp, *arguments, "--settings", json.dumps(settings), "--output", path, launcher=launcher)
        return path

    def train(
        self,
        name: str,
        *options: Any,
        launcher: tuple[str, ...] = (),
        model: Path | None = None,
        **settings: Any,
    ) -> dict[str, Any]:
        """Train and return the manifest of the checkpoint, with the training's history."""
        output = self.folder / name / "checkpoint.json"
        arguments = ["--data", self.data, "--model", model or self.checkpoint]
        arguments += ["--settings", json.dumps(SETTINGS | settings), "--state", self.folder / "run/state/r1"]
        arguments += [*options, "--output", output]
        self.run(train, *arguments, launcher=launcher)
        return read_json(output) | {"history": read_json(output.with_name("history.json"))}

    def model(self, name: str = "start") -> Any:
        """Return a model that was published, by transformers' own loader."""
        return AutoModelForCausalLM.from_pretrained(self.folder / name / "model", dtype=torch.float32).eval()


def check_histories(one: dict[str, Any], other: dict[str, Any], tolerance: float = 1e-5) -> None:
    """Check that the second training logged the same as the first at every update, in bf16 at the first two.

    Later in this training most tokens are clipped, and rounding to bf16 decides which ones. Quantiles of ratios are
    left out, because they are of the first rank's tokens only.
    """
    assert len(one["history"]) == len(other["history"])
    updates = None if tolerance < 1e-4 else 2

    for mine, theirs in zip(one["history"][:updates], other["history"]):
        assert "grad_norm" in theirs  # under DeepSpeed in stage 0, the first training has none
        for name in mine.keys() - {"ratio_p05", "ratio_p50", "ratio_p95"}:
            assert mine[name] == pytest.approx(theirs[name], rel=tolerance, abs=tolerance), name
