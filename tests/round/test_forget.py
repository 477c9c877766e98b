"""Weights and ledgers of earlier rounds are deleted only if they can be made again or are not needed."""

import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.harness import tiny_config
from workflow_scripts import forget, verify
from workflow_scripts.config.sections import Keep
from workflow_scripts.core.checkpoint import publish
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json, write_json
from workflow_scripts.core.pickles import write_pickle
from workflow_scripts.core.running import soundness
from workflow_scripts.core.running.ledger import Ledger
from workflow_scripts.core.running.manifest import content_digest, write_manifest, write_usage

RUN = "runs/long"
ACCURACIES = (0.1, 0.5, 0.9, 0.7, 0.9, 0.8)
SECONDS = 10.0  # of each training


def checkpoint(n: int) -> str:
    return f"{RUN}/checkpoints/r{n}/checkpoint.json"


def write_round(n: int) -> None:
    """Write what a round leaves: data, a ledger of two writers, a checkpoint and an evaluation."""
    data = f"{RUN}/data/offline_r{n}.pkl"
    write_pickle(data, [{"uid": f"{n}.{i}"} for i in range(3)])
    write_manifest(data, [], {}, rows=3)
    for writer in range(2):
        ledger = Ledger(f"{RUN}/ledger/generate/r{n}/auto", "1_0")
        ledger.append([("both", n), (f"only{writer}", n)])

    inputs = [data, *([checkpoint(n - 1)] if n else [])]

    def save(folder: Path) -> None:
        folder.mkdir()
        (folder / "config.json").write_text(f"weights of round {n}")

    publish(checkpoint(n), save, {"round": n, "inputs": {path: content_digest(path) for path in inputs}})
    write_usage(checkpoint(n), seconds=SECONDS)
    write_json(f"{RUN}/evaluation/r{n}.json", {"round": n, "accuracy": ACCURACIES[n], "inputs": {}})


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    """Return the folder of a run with the rounds 0 to 5."""
    monkeypatch.chdir(tmp_path)
    for n in range(6):
        write_round(n)
    ledger = Ledger(f"{RUN}/ledger/requests", "1_0")
    ledger.append([("paid", 1)])
    return Path(RUN)


def forgetting(checkpoints=None, ledgers=None) -> forget.Forgetting:
    return forget.Forgetting(RUN, Keep(checkpoints=checkpoints, ledgers=ledgers), "accuracy")


def with_weights() -> list[int]:
    return [n for n in range(6) if Path(checkpoint(n)).with_name("model").is_dir()]


# ---------------------------------------------------------------- checkpoints


@pytest.mark.parametrize(
    ("checkpoints", "kept"),
    [
        (None, [0, 1, 2, 3, 4, 5]),
        (["last"], [0, 5]),
        (["last", "best"], [0, 2, 5]),
        (["last", {"every": 3}], [0, 3, 5]),
    ],
)
def test_the_config_says_whose_weights_are_kept(run, checkpoints, kept):
    forget.forget(forgetting(checkpoints), needed=(), busy=())

    assert with_weights() == kept
    assert all(Path(checkpoint(n)).exists() for n in range(6))
    states = {n: verify.Walk(RUN, 5, checkpoint(0)).state(checkpoint(n)) for n in range(6)}
    assert [n for n in range(6) if states[n][0] == "sound"] == kept
    assert all(states[n][0] == "evicted" for n in range(6) if n not in kept)
    assert not list(run.rglob(".model.evicted"))


def test_what_pending_jobs_need_stays(run):
    forget.forget(forgetting(["last"]), needed=[checkpoint(4)], busy=())
    assert with_weights() == [0, 4, 5]


def test_the_cost_counts_back_to_weights_that_are_kept(run, capsys):
    forget.forget(forgetting(["last"]), needed=(), busy=())

    printed = capsys.readouterr().out
    assert "deleted the weights of round 3 (0.0 MB); making it again costs about 30 s of training" in printed
    assert forgetting().seconds_again(Path(checkpoint(4))) == 4 * SECONDS
    assert read_json(Path(checkpoint(2)).with_name("evicted.json"))["seconds"] == 2 * SECONDS


def test_weights_that_could_not_be_made_again_stay(run, capsys):
    """The data of round 2 changed, so the weights of round 2 stay. Those of later rounds are made from them."""
    write_pickle(f"{RUN}/data/offline_r2.pkl", [{"uid": "other"}])
    Path(f"{RUN}/data/offline_r3.pkl").unlink()
    forget.forget(forgetting(["last"]), needed=(), busy=())

    printed = capsys.readouterr().out
    assert with_weights() == [0, 2, 3, 5]
    assert "round 2: the weights stay, because they could not be made again" in printed
    assert f"its input {RUN}/data/offline_r2.pkl changed since" in printed
    assert f"its input {RUN}/data/offline_r3.pkl is not there" in printed


def test_a_stage_that_reads_deleted_weights_says_why_they_are_gone(run):
    forget.forget(forgetting(["last"]), needed=(), busy=())
    with pytest.raises(BadInput, match=r"r3/checkpoint.json: its weights were deleted, because"):
        soundness.check(Path(checkpoint(3)))

    Path(checkpoint(3)).unlink()
    write_round(3)  # they are made again
    soundness.check(Path(checkpoint(3)))
    assert verify.Walk(RUN, 5, checkpoint(0)).state(checkpoint(3))[0] == "sound"


def test_the_command_lists_and_deletes_nothing_by_default(run, monkeypatch, capsys):
    write_json(run / "run.json", {"task": "math"})
    options = ["forget", "--run", RUN, "--keep", '{"checkpoints": ["last"], "ledgers": 2}']
    monkeypatch.setattr("sys.argv", options)
    forget.main()

    assert len(capsys.readouterr().out.splitlines()) == 4 + 4
    assert with_weights() == [0, 1, 2, 3, 4, 5]
    monkeypatch.setattr("sys.argv", [*options, "--delete"])
    forget.main()
    assert with_weights() == [0, 5]


# ---------------------------------------------------------------- ledgers


def test_ledgers_of_the_last_rounds_stay_and_are_merged(run):
    forget.forget(forgetting(ledgers=2), needed=(), busy=[5])

    left = Counter(path.parts[-3] for path in run.glob("ledger/generate/*/auto/*.jsonl"))
    assert left == {"r4": 1, "r5": 2}  # round 5 is still at work
    assert dict(Ledger(f"{RUN}/ledger/generate/r4/auto", "1_0").entries()) == {"both": 4, "only0": 4, "only1": 4}
    assert dict(Ledger(f"{RUN}/ledger/requests", "1_0").entries()) == {"paid": 1}


def test_ledgers_of_rounds_with_pending_jobs_stay(run):
    forget.forget(forgetting(ledgers=1), needed=(), busy=[1, 3])
    assert sorted(path.name for path in run.glob("ledger/generate/*")) == ["r1", "r3", "r5"]


# ---------------------------------------------------------------- a real run


@pytest.mark.long
def test_a_run_forgets_after_a_job_and_says_how_to_make_again_what_it_needs(fork, monkeypatch):
    """Round 2 has the weights of round 1, so that nothing needs to be trained here."""
    fork.configure(tiny_config(keep={"checkpoints": ["last"], "ledgers": 1}))
    shutil.copytree(fork.path("checkpoints/r1"), fork.path("checkpoints/r2"))
    manifest = read_json(fork.path("checkpoints/r2/checkpoint.json")) | {"round": 2}
    manifest["inputs"] = {"runs/arithmetic/checkpoints/r1/checkpoint.json": manifest["digest"]}
    manifest.pop("seal", None)
    write_json(fork.path("checkpoints/r2/checkpoint.json"), manifest)

    printed = fork.snakemake(
        "--forcerun", "construct_data", "--", "runs/arithmetic/data/offline_small_r1_arithmetic.pkl"
    )
    assert "keep: deleted the weights of round 1" in printed
    assert "keep: deleted the ledgers of round 1" in printed
    assert [n for n in range(3) if fork.path(f"checkpoints/r{n}/model").is_dir()] == [0, 2]
    assert not fork.path("ledger/generate/r1").exists()

    printed = fork.snakemake("-n", "runs/arithmetic/results/r2/auto/2_0.pkl")
    assert "type `rm runs/arithmetic/checkpoints/r1/checkpoint.json` and the same command" in printed
    monkeypatch.chdir(fork.folder)
    walk = verify.Walk("runs/arithmetic", 1, "runs/arithmetic/checkpoints/r0/checkpoint.json")
    assert walk.state("runs/arithmetic/checkpoints/r1/checkpoint.json")[0] == "evicted"
