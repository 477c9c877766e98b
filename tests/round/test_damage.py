"""Damage to any artefact is found by `verify`, and by the next stage that reads the file, before it uses it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from workflow_scripts import (
    construct_data,
    construct_meta,
    evaluate,
    grade,
    logp,
    report,
    train,
    verify,
)
from workflow_scripts.core.errors import BadInput

RUN = "runs/arithmetic"
MODEL = f"{RUN}/checkpoints/r0/checkpoint.json"
DATA = f"{RUN}/data/offline_small_r1_arithmetic.pkl"
MATH = ("--task", "math")

# Artefact → the next stage that reads it, that stage's options, and a file of the same kind that takes its place.
KINDS = {
    "results/r1/auto/2_0.pkl": (grade, [*MATH, "--results", "{}"], "results/r1/trigger/2_0.pkl"),
    "results/r1/auto/2_0.json": (
        grade,
        [*MATH, "--results", f"{RUN}/results/r1/auto/2_0.pkl"],
        "evaluation/r1/2_0.json",
    ),
    "results/r1/auto/2_0_matchlog.pkl": (
        construct_meta,
        [*MATH, "--results", "{}"],
        "results/r1/trigger/2_0_matchlog.pkl",
    ),
    "meta/r1_auto_q2responses_arithmetic.pkl": (
        construct_data,
        [*MATH, "--model", MODEL, "--auto", "{}"],
        "meta/r1_trigger_q2responses_arithmetic.pkl",
    ),
    "data/offline_small_r1_arithmetic.pkl": (logp, ["--model", MODEL, "--data", "{}"], "data/sft_arithmetic.pkl"),
    "data/offline_small_r1_arithmetic_logp/2_0.pkl": (
        train,
        ["--settings", '{"objective": "clip"}', "--model", MODEL, "--data", DATA, "--state", "none", "--logp", "{}"],
        "data/offline_small_r1_arithmetic_logp/2_1.pkl",
    ),
    "data/sft_arithmetic.pkl": (
        train,
        ["--settings", '{"objective": "sft"}', "--model", MODEL, "--state", "none", "--data", "{}"],
        "data/offline_small_r1_arithmetic.pkl",
    ),
    "checkpoints/r0/checkpoint.json": (logp, ["--model", "{}", "--data", DATA], "checkpoints/r1/checkpoint.json"),
    "checkpoints/r0/model/model.safetensors": (
        logp,
        ["--model", MODEL, "--data", DATA],
        "checkpoints/r1/model/model.safetensors",
    ),
    "checkpoints/r0/model/tokenizer.json": (
        logp,
        ["--model", MODEL, "--data", DATA],
        "checkpoints/r0/model/config.json",
    ),
    "evaluation/r1/2_0_matchlog.pkl": (
        evaluate,
        [*MATH, "--round", "1", "--results", "{}"],
        "evaluation/r0/2_0_matchlog.pkl",
    ),
    "evaluation/r1.json": (report, [*MATH, "--run", RUN], "evaluation/r0.json"),
}


def flipped(place: float) -> Callable[[Path, Path], None]:
    """Return the damage of one bit, at a share of the file's length."""

    def damage(path: Path, other: Path) -> None:
        data = bytearray(path.read_bytes())
        data[int(place * (len(data) - 1))] ^= 1
        path.write_bytes(data)

    return damage


def truncated(path: Path, other: Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3)


def emptied(path: Path, other: Path) -> None:
    os.truncate(path, 0)


def replaced(path: Path, other: Path) -> None:
    shutil.copyfile(other, path)


def replaced_with_manifest(path: Path, other: Path) -> None:
    shutil.copyfile(other, path)
    if path.suffix == ".pkl":
        shutil.copyfile(other.with_suffix(".json"), path.with_suffix(".json"))


DAMAGES = {
    "first byte flipped": flipped(0),
    "a byte flipped": flipped(0.4),
    "last byte flipped": flipped(1),
    "truncated": truncated,
    "emptied": emptied,
    "replaced": replaced,
    "replaced with its manifest": replaced_with_manifest,
}


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory):
    """Yield the folder of a finished run as the working directory, to which stages' paths are relative."""
    folder = tmp_path_factory.mktemp("damaged")
    shutil.copytree(finished.folder / "runs", folder / "runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        verify.Walk(RUN, 1, MODEL).all()  # as a person does from time to time; it notes the state of the models
        yield folder / RUN


@pytest.fixture
def restored(run):
    """Yield the run, and bring back what the test changes."""
    before = {
        path: path.read_bytes()
        for name in KINDS
        for path in (run / name, (run / name).with_suffix(".json"))
        if path.exists()
    }
    yield run
    for path, data in before.items():
        if path.read_bytes() != data:
            path.write_bytes(data)


def state(name: str, is_full: bool = False) -> str:
    """Return what `verify` says of a file, or of the checkpoint that it belongs to."""
    path = Path(RUN, name)
    artefact = path
    if path.with_suffix(".pkl").exists():
        artefact = path.with_suffix(".pkl")
    elif path.parent.name == "model":
        artefact = path.parent.with_name("checkpoint.json")
    return verify.Walk(RUN, 1, MODEL, is_full=is_full).state(str(artefact))[0]


def start(name: str, tmp_path: Path, monkeypatch) -> None:
    """Run the next stage that reads a file."""
    stage, options, _ = KINDS[name]
    options = [option.format(f"{RUN}/{name}") if option == "{}" else option for option in options]
    output = [] if stage is report else ["--output", str(tmp_path / "output.json")]
    monkeypatch.setattr("sys.argv", [stage.__name__, *options, *output])
    stage.main()


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", KINDS)
def test_damage_is_found_by_verify_and_by_the_next_stage(restored, tmp_path, monkeypatch, name, damage):
    path = restored / name
    assert state(name) == "sound"
    DAMAGES[damage](path, restored / KINDS[name][2])

    assert state(name) in ("damaged", "missing")
    with pytest.raises(BadInput, match="Nothing was computed from it"):
        start(name, tmp_path, monkeypatch)
    assert not list(tmp_path.iterdir())


def test_an_edit_that_keeps_size_and_time_is_found_by_a_full_verification(restored):
    """Models are compared by size and time once they were found sound, and records by their bytes."""
    expected = {"checkpoints/r0/model/model.safetensors": "sound", "results/r1/auto/2_0.pkl": "damaged"}
    for name, by_default in expected.items():
        before = (restored / name).stat()
        flipped(0.5)(restored / name, restored)
        os.utime(restored / name, ns=(before.st_atime_ns, before.st_mtime_ns))

        assert state(name) == by_default
        assert state(name, is_full=True) == "damaged"


def test_a_lost_manifest_is_found(restored):
    (restored / "results/r1/auto/2_0.json").rename(restored / "hidden")
    assert state("results/r1/auto/2_0.pkl") == "missing"
    (restored / "hidden").rename(restored / "results/r1/auto/2_0.json")


def test_a_damaged_output_is_no_reason_not_to_make_it_again(restored, monkeypatch):
    emptied(restored / "evaluation/r1.json", restored)
    results = [f"{RUN}/evaluation/r1/2_{shard}_matchlog.pkl" for shard in range(2)]
    options = ["--round", "1", "--results", *results, "--output", f"{RUN}/evaluation/r1.json"]
    monkeypatch.setattr("sys.argv", ["evaluate", *MATH, *options])
    evaluate.main()

    assert state("evaluation/r1.json") == "sound"
