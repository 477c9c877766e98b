"""The target verify tells which artefacts are sound, stale, missing or damaged."""

import shutil
import sys

import pytest

from workflow_scripts import verify
from workflow_scripts.core.errors import BadInput


def test_damage_and_missing_files_are_named(fork):
    assert "round 1: sound" in fork.snakemake("verify")

    weights = fork.path("checkpoints/r0/model/model.safetensors")
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    output = fork.snakemake("verify", fails=True)
    assert "round 0: damaged" in output
    assert "checkpoints/r0/model/model.safetensors is not the file that was written" in output
    assert "round 1: stale" in output

    shutil.rmtree(fork.path("checkpoints/r1"))
    assert "round 1: missing" in fork.snakemake("verify", fails=True)


def test_a_run_that_was_never_made_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["verify", "--run", str(tmp_path / "other")])

    with pytest.raises(BadInput, match="other: nothing has been made here yet"):
        verify.main()
