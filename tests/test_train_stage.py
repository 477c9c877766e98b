"""The stages logp and train as they are run: passports, several processes, DeepSpeed, references, carried moments."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed

from tests.conftest import REPOSITORY
from tests.test_training import make_rows, own_logps
from workflow_scripts.core.checkpoint import publish
from workflow_scripts.core.manifest import write_manifest
from workflow_scripts.core.records import read_json, read_pickle, write_pickle

TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
SETTINGS = {"objective": "clip", "lr": 1e-3, "batch_size": 8, "save_steps": 1, "threads": 1}


def small_tokenizer():
    from tokenizers import Tokenizer, models

    words = {f"w{i}": i for i in range(50)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w0")), eos_token="w1", pad_token="w1"
    )


class Workshop:
    """A small checkpoint and rows that it is trained on, as files."""

    def __init__(self, folder: Path, tied: bool = False):
        self.folder, self.checkpoint = folder, folder / "start/checkpoint.json"
        self.data = folder / "data.pkl"
        set_seed(0)
        config = LlamaConfig(
            vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=256, bos_token_id=0, eos_token_id=1, initializer_range=0.2,
            tie_word_embeddings=tied,
        )  # fmt: skip

        def save(place):
            LlamaForCausalLM(config).save_pretrained(place)
            small_tokenizer().save_pretrained(place)

        self.policy = publish(self.checkpoint, save, {})["digest"]
        self.write([row | {"policy": self.policy} for row in make_rows(16)])

    def write(self, rows):
        write_pickle(self.data, rows)
        write_manifest(self.data, [], {}, rows=len(rows))

    def run(self, *command, fails=None) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *map(str, command)], cwd=REPOSITORY, capture_output=True, text=True
        )
        if fails is None:
            assert done.returncode == 0, done.stderr[-4000:]
        else:
            assert done.returncode and fails in done.stderr, done.stderr[-4000:]
        return done.stdout + done.stderr

    def logp(self, checkpoint=None, name="logp", **settings) -> Path:
        path = self.folder / name / "1_0.pkl"
        self.run("workflow_scripts.logp", "--data", self.data, "--model", checkpoint or self.checkpoint,
                 "--settings", json.dumps(settings), "--output", path)  # fmt: skip
        return path

    def train(self, name, *options, launcher=(), fails=None, model=None, **settings) -> dict:
        """Manifest and history of a training run; or nothing, where it must fail with a message."""
        output = self.folder / name / "checkpoint.json"
        said = self.run(*launcher, "workflow_scripts.train", "--data", self.data, "--model", model or self.checkpoint,
                        "--settings", json.dumps(SETTINGS | settings), "--state", self.folder / "state", *options,
                        "--output", output, fails=fails)  # fmt: skip
        if fails is None:
            return read_json(output) | {"history": read_json(output.with_name("history.json")), "said": said}
        return {"said": said}

    def model(self, name="start"):
        return AutoModelForCausalLM.from_pretrained(self.folder / name / "model", dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="module")
def plain(workshop):
    """Two epochs by one process, and its log-prob file."""
    path = workshop.logp()
    return workshop.train("plain", "--logp", path, "--round", 1, epochs=2) | {"logp": path}


@torch.no_grad()
def test_stored_log_probs_are_those_of_the_stock_model(workshop, plain):
    stored, stock = read_pickle(plain["logp"]), workshop.model()
    for row in read_pickle(workshop.data):
        torch.testing.assert_close(torch.from_numpy(stored[row["qid"]]), own_logps(stock, row), atol=2e-6, rtol=0)


def test_the_first_update_of_a_round_has_ratio_one(plain):
    first = plain["history"][0]
    assert first["ratio"] == pytest.approx(1, abs=1e-5) and first["ess"] == pytest.approx(1, abs=1e-5)
    assert first["clipped"] == 0 and first["foreign"] == 0 and plain["updates"] == 4
    assert plain["history"][-1]["ratio_p95"] > 1.001


def compare(one, other, tolerance=1e-5):
    """Every figure of every update; DeepSpeed in stage 0 does not say its gradient's norm."""
    for mine, theirs in zip(one["history"], other["history"], strict=True):
        assert "grad_norm" in theirs
        for name in mine.keys() - {"ratio_p05", "ratio_p50", "ratio_p95"}:  # those are of rank 0's tokens
            assert mine[name] == pytest.approx(theirs[name], rel=tolerance, abs=tolerance), name


def test_two_ranks_equal_one(workshop, plain):
    two = workshop.train("two", "--logp", plain["logp"], "--round", 1, launcher=TORCHRUN, epochs=2, tokens_per_bin=64)
    compare(two, plain)
    largest = max(
        (a - b).abs().max().item()
        for a, b in zip(workshop.model("two").parameters(), workshop.model("plain").parameters())
    )
    assert largest < 1e-4


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_zero_saves_and_reloads_fp32_weights(tmp_path, stage, tied):
    workshop = Workshop(tmp_path, tied)
    path = workshop.logp()
    one = workshop.train("one", "--logp", path, epochs=2)
    many = workshop.train("many", "--logp", path, launcher=TORCHRUN, epochs=2, deepspeed={"stage": stage})
    compare(many, one, 1e-4)
    for (name, ours), theirs in zip(workshop.model("many").named_parameters(), workshop.model("one").parameters()):
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=0, msg=name)
