"""The stages logp and train as they are run: passports, several processes, DeepSpeed, references, carried moments."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed

from tests.conftest import REPOSITORY
from tests.test_training import make_rows, own_logps
from workflow_scripts import logp, train
from workflow_scripts.core.checkpoint import publish
from workflow_scripts.core.manifest import write_manifest
from workflow_scripts.core.records import BadInput, read_json, read_pickle, write_json, write_pickle

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
        self.write([row | {"policy": self.policy, "reward": i % 4 / 3} for i, row in enumerate(make_rows(16))])

    def write(self, rows):
        write_pickle(self.data, rows)
        write_manifest(self.data, [], {}, rows=len(rows))

    def run(self, stage, *options, launcher=()) -> None:
        """In this process, or by a launcher."""
        if launcher:
            command = [sys.executable, "-m", *launcher, f"workflow_scripts.{stage.__name__.split('.')[1]}", *options]
            done = subprocess.run([str(part) for part in command], cwd=REPOSITORY, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[-4000:]
            return
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [stage.__name__, *map(str, options)])
            stage.main()

    def logp(self, checkpoint=None, name="logp", options=(), **settings) -> Path:
        path = self.folder / name / "1_0.pkl"
        shutil.rmtree(path.parent, ignore_errors=True)
        self.run(logp, "--data", self.data, "--model", checkpoint or self.checkpoint, *options,
                 "--settings", json.dumps(settings), "--output", path)  # fmt: skip
        return path

    def train(self, name, *options, launcher=(), model=None, **settings) -> dict:
        """Manifest and history of a training run."""
        output = self.folder / name / "checkpoint.json"
        self.run(train, "--data", self.data, "--model", model or self.checkpoint,
                 "--settings", json.dumps(SETTINGS | settings), "--state", self.folder / "run/state/r1", *options,
                 "--output", output, launcher=launcher)  # fmt: skip
        return read_json(output) | {"history": read_json(output.with_name("history.json"))}

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
    assert sum(entry["reward"] for entry in plain["history"]) / 4 == pytest.approx(0.5)
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


@pytest.mark.parametrize("field", ["model", "data", "tokenizer"])
def test_a_stale_passport_is_refused(workshop, plain, tmp_path, field):
    for name in ("1_0.pkl", "1_0.json"):
        shutil.copy(plain["logp"].with_name(name), tmp_path)
    manifest = read_json(tmp_path / "1_0.json")
    manifest["passport"][field] = "another"
    write_json(tmp_path / "1_0.json", manifest)
    with pytest.raises(BadInput, match=f"made for another {field}"):
        workshop.train("refused", "--logp", tmp_path / "1_0.pkl")


def test_log_probs_of_another_arithmetic_or_sampling_are_refused(workshop, plain):
    with pytest.raises(BadInput, match=r"another dtype .*one dtype"):
        workshop.train("refused", "--logp", plain["logp"], dtype="bfloat16")
    cut = workshop.logp(name="cut", options=("--top-p", 0.9))
    for objective in ("clip", "ips", "topr"):
        with pytest.raises(BadInput, match=f"ratios of `{objective}` would be biased"):
            workshop.train("refused", "--logp", cut, objective=objective)


def test_objectives_that_need_stored_log_probs_say_so(workshop, plain):
    for objective in ("clip", "ips", "topr"):
        with pytest.raises(BadInput, match=f"--logp: the objective {objective} needs"):
            workshop.train("refused", objective=objective)
    with pytest.raises(BadInput, match="--ref-logp: the objective clip needs"):
        workshop.train("refused", "--logp", plain["logp"], kl=0.1)


def test_bf16_scores_as_it_trains(workshop):
    path = workshop.logp(name="bf16", dtype="bfloat16")
    first = workshop.train("bf16", "--logp", path, dtype="bfloat16")["history"][0]
    assert first["ratio"] == pytest.approx(1, abs=1e-6) and first["ess"] == pytest.approx(1, abs=1e-6)


def test_the_kl_to_a_reference_begins_at_zero_and_holds_the_policy_back(workshop, plain):
    reference = ("--ref-logp", plain["logp"], "--reference", workshop.checkpoint)
    free = workshop.train("free", "--logp", plain["logp"], *reference, kl=1e-9, epochs=4)["history"]
    held = workshop.train("held", "--logp", plain["logp"], *reference, kl=5, epochs=4)["history"]
    assert held[0]["kl_reference"] == pytest.approx(0, abs=1e-6)
    assert 0 < held[-1]["kl_reference"] < free[-1]["kl_reference"] / 2


def test_carried_moments_continue_as_one_run(workshop):
    settings = {"objective": "sft", "batch_size": 16, "warmup": 0}
    whole = workshop.train("whole", **settings, epochs=2)
    first = workshop.train("first", "--round", 1, **settings, optimizer="carry")
    start = workshop.folder / "first/checkpoint.json"
    second = workshop.train("second", "--round", 2, model=start, **settings, optimizer="carry")
    fresh = workshop.train("fresh", "--round", 2, model=start, **settings)
    assert first["moments"] != second["moments"] and "moments" not in fresh
    pairs = [workshop.model(name).state_dict() for name in ("whole", "second", "fresh")]
    apart = [max((pairs[0][name] - other[name]).abs().max().item() for name in other) for other in pairs[1:]]
    assert apart[0] < 1e-6 < 1e-4 < apart[1]
    assert whole["updates"] == 2
    (start.parent / train.MOMENTS).write_bytes(b"other")
    with pytest.raises(BadInput, match=r"not the moments that .* was published with"):
        workshop.train("refused", "--round", 2, model=start, **settings, optimizer="carry")


def test_a_schedule_over_all_rounds_goes_on_where_the_last_round_ended(workshop):
    settings = {"objective": "sft", "schedule": "linear", "warmup": 0, "lr": 1, "updates_per_round": 2}
    found = []
    for number in (1, 2):
        place = ("--round", number, "--rounds", 2)
        history = workshop.train("part", *place, **settings, schedule_over="rounds")["history"]
        found += [entry["learning_rate"] for entry in history]
    assert found == pytest.approx([1, 0.75, 0.5, 0.25])


def test_training_stops_when_the_ratios_are_worn_out(workshop, plain):
    worn = workshop.train("worn", "--logp", plain["logp"], epochs=8, lr=0.05, min_ess=0.9)
    assert worn["updates"] < 16 and worn["stopped"]["update"] == worn["updates"] and worn["stopped"]["ess"] < 0.9
    assert worn["history"][-1]["step"] == worn["updates"] and worn["history"][-1]["ess"] < 0.9


def test_a_run_that_had_stopped_stays_stopped_when_it_is_resumed(workshop, plain, monkeypatch):
    settings = {"epochs": 8, "lr": 0.05, "min_ess": 0.9}
    whole = workshop.train("worn", "--logp", plain["logp"], **settings)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train, "publish_round", killed)
        workshop.train("resumed", "--logp", plain["logp"], **settings)
    resumed = workshop.train("resumed", "--logp", plain["logp"], **settings)
    assert (resumed["updates"], resumed["stopped"]) == (whole["updates"], whole["stopped"])
    assert resumed["digest"] == whole["digest"]


def test_foreign_rows_have_no_ratio_unless_it_is_asked_to_be_proximal(tmp_path):
    workshop = Workshop(tmp_path)
    workshop.write([row | {"policy": "foreign"} for row in make_rows(16)])
    path = workshop.logp()
    one = workshop.train("one", "--logp", path, objective="ips", epochs=2)
    proximal = workshop.train("proximal", "--logp", path, objective="ips", epochs=2, foreign_ratio="proximal")
    assert one["foreign"] == proximal["foreign"] == 16
    assert one["history"][-1]["foreign"] == 1 and "ratio" not in one["history"][-1]
    assert proximal["history"][-1]["foreign"] == 0 and proximal["history"][-1]["ratio_p95"] > 1.001


def pairs_of_rows(count=8) -> list[dict]:
    return [
        row | {"pair": f"p{i // 2}", "advantage": 1.0 - 2 * (i % 2), "policy": "foreign"}
        for i, row in enumerate(make_rows(2 * count))
    ]


def test_dpo_does_not_depend_on_the_bins_where_a_pair_comes_twice_in_an_update(tmp_path):
    workshop = Workshop(tmp_path)
    workshop.write(pairs_of_rows(3))
    workshop.train("moved", objective="sft", lr=1e-2)
    moved = workshop.folder / "moved/checkpoint.json"
    reference = ("--ref-logp", workshop.logp(), "--reference", workshop.checkpoint)
    losses = [
        workshop.train(
            f"bins{budget}", *reference, model=moved, objective="dpo", updates_per_round=1, epochs=2,
            tokens_per_bin=budget,
        )["history"][0]["loss"]
        for budget in (1, 10_000)
    ]  # fmt: skip
    assert losses[0] == pytest.approx(losses[1], abs=1e-6) and abs(losses[0] - math.log(2)) > 0.01


@pytest.mark.parametrize("launcher", [(), TORCHRUN], ids=["one", "two_ranks"])
def test_dpo_begins_at_ln_2(tmp_path, launcher):
    workshop = Workshop(tmp_path)
    workshop.write(pairs_of_rows())
    reference = ("--ref-logp", workshop.logp(), "--reference", workshop.checkpoint)
    settings = {"objective": "dpo", "nll_weight": 0, "batch_size": 8, "epochs": 20}
    history = workshop.train("dpo", *reference, launcher=launcher, **settings)["history"]
    assert history[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert history[-1]["preferred"] == 1 and history[-1]["margin"] > 0.1


def test_dpo_refuses_rows_without_a_partner(workshop, plain):
    with pytest.raises(BadInput, match="preference pairs, but row r0 belongs to none"):
        workshop.train("refused", "--ref-logp", plain["logp"], "--reference", workshop.checkpoint, objective="dpo")


def test_curves_are_kept_offline(workshop, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_SERVICE", "")  # wandb sets it, and what later tests start would share its process
    monkeypatch.delenv("WANDB_SERVICE")
    monkeypatch.setenv("WANDB_MODE", "offline")
    workshop.train("curves", objective="sft")
    kept = list((workshop.folder / "run/wandb").rglob("*.wandb"))
    assert len(kept) == 1 and b"grad_norm" in kept[0].read_bytes()
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(BadInput, match="WANDB_API_KEY"):
        workshop.train("more", objective="sft")


def test_without_wandb_training_goes_on(workshop, monkeypatch, capsys):
    monkeypatch.setattr("workflow_scripts.training.tracking.find_spec", lambda name: None)
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert workshop.train("bare", objective="sft")["updates"] == 2
    assert "wandb is not installed" in capsys.readouterr().err


@pytest.mark.slow
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


@pytest.mark.slow
def test_dpo_begins_at_ln_2_under_deepspeed(tmp_path):
    workshop = Workshop(tmp_path)
    workshop.write(pairs_of_rows())
    reference = ("--ref-logp", workshop.logp(), "--reference", workshop.checkpoint)
    settings = {"objective": "dpo", "nll_weight": 0, "batch_size": 8, "deepspeed": {"stage": 3}}
    history = workshop.train("dpo", *reference, launcher=TORCHRUN, **settings)["history"]
    assert history[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.slow
def test_log_probs_survive_a_bf16_deepspeed_run_as_fp32(tmp_path):
    """They reach the objective uncast: the ratio of the first update is 1, and KL to shifted log-probs is exact."""
    workshop = Workshop(tmp_path)
    path = workshop.logp(dtype="bfloat16")
    settings = {"dtype": "bfloat16", "deepspeed": {"stage": 2}}
    history = workshop.train("bf16", "--logp", path, launcher=TORCHRUN, **settings)["history"]
    assert history[0]["ratio"] == pytest.approx(1, abs=1e-6) and history[0]["ess"] == pytest.approx(1, abs=1e-6)
    before, after = workshop.model("start").state_dict(), workshop.model("bf16").state_dict()
    assert all(value.dtype == torch.float32 for value in after.values())
    rounded = [torch.equal(value, value.bfloat16().float()) for name, value in after.items() if "proj" in name]
    assert not any(rounded) and before.keys() == after.keys()
