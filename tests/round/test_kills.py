"""After kill -9 a run goes on where it was, to the same bytes."""

import re
import shutil

import pytest

from tests.harness import Copy, kill, tiny_config, wait_for
from workflow_scripts.core.files import read_json

CHECKPOINT = "runs/arithmetic/checkpoints/r1/checkpoint.json"


@pytest.mark.long
def test_generation_goes_on_from_the_ledger_to_the_same_bytes(finished, tmp_path):
    copy = Copy(tmp_path / "killed", tiny_config())
    shutil.copytree(finished.path("checkpoints"), copy.path("checkpoints"), symlinks=True)
    shutil.rmtree(copy.path("checkpoints/r1"))
    shutil.copytree(finished.path("prompts"), copy.path("prompts"))
    copy.path("data").mkdir()
    for name in ("data/sft_arithmetic.pkl", "data/sft_arithmetic.json"):
        shutil.copy2(finished.path(name), copy.path(name))

    targets = ["runs/arithmetic/results/r1/auto/2_0.pkl", "runs/arithmetic/results/r1/trigger/2_1.pkl"]

    def has_entries() -> bool:
        ledgers = copy.path("ledger/generate/r1").glob("*/*.jsonl")
        return any(path.read_text().count("\n") >= 2 for path in ledgers)

    process = copy.start(*targets)
    wait_for(has_entries, process)
    kill(process)
    output = copy.snakemake(*targets)

    assert re.search(r"\d+ of \d+ records are in the ledger, going on at record \w+", output)
    for name in targets:
        assert (copy.folder / name).read_bytes() == (finished.folder / name).read_bytes(), name


@pytest.mark.long
def test_training_goes_on_from_its_state_to_the_same_digest(fork):
    before = read_json(fork.path("checkpoints/r1/checkpoint.json"))
    shutil.rmtree(fork.path("checkpoints/r1"))

    process = fork.start(CHECKPOINT)
    wait_for(lambda: list(fork.path("state/r1").glob("*/checkpoint-*/complete")), process)
    kill(process)
    assert not fork.path("checkpoints/r1/checkpoint.json").exists()
    output = fork.snakemake(CHECKPOINT)

    assert re.search(r"train: going on from update \d+ of \d+", output)
    assert read_json(fork.path("checkpoints/r1/checkpoint.json")) == before
    assert not list(fork.path("state/r1").glob("*/"))  # no saved states are left
