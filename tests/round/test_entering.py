"""Rounds that start half-way, from files that exist: a chain with real stages, and what reruns when a file changes."""

import shutil
import sys

import pytest

from tests.harness import NOTHING_TO_DO, Copy, jobs, outputs, tiny_config
from workflow_scripts.core.files import read_json
from workflow_scripts.core.pickles import read_pickle, write_pickle
from workflow_scripts.tasks.math import export_autocode


def entering(finished: Copy, **changes) -> dict:
    """Return a config that goes on from the finished run's round 0, with a shard and the files in its own folder."""
    config = tiny_config(rounds=2, shards=1, name="entering", **changes)
    config["model"] = {"path": str(finished.path("checkpoints/r0/model"))}
    config["math"] = {"switches": ["all"]}
    del config["cold_start"]
    del config["prompts"]["train"]
    return config


def export(kind: str, source, output) -> None:
    """Write a file of the finished run in AutoCode's format."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["export_autocode", "--kind", kind, "--input", str(source), "--output", str(output)])
        export_autocode.main()


def test_a_dry_run_knows_what_existing_files_spare(tmp_path):
    config = tiny_config(rounds=3, meta={2: {"trigger": "meta.pkl"}})
    config["rows"] = {3: {"file": "rows.pkl", "format": "task", "logp": ["logps"]}}
    copy = Copy(tmp_path / "dry", config)
    (copy.folder / "logps").mkdir()
    for name in ("meta.pkl", "rows.pkl", "logps/0.pkl"):
        (copy.folder / name).write_bytes(b"")

    output = copy.snakemake("-n", "round3_logp")
    assert {path.split("/")[3] for path in outputs(output, "generate")} == {"r1"}
    assert outputs(output, "import_meta") == ["runs/arithmetic/meta/r2_trigger_q2responses_arithmetic.pkl"]
    assert outputs(output, "import_rows") == ["runs/arithmetic/data/offline_small_r3_arithmetic.pkl"]
    assert {path.split("/")[-2] for path in outputs(output, "import_logp")} == {"offline_small_r3_arithmetic_logp"}
    assert "logps/0.pkl" in output
    assert {path.split("_r")[1][0] for path in outputs(output, "construct_data")} == {"1", "2"}

    (copy.folder / "meta.pkl").unlink()
    message = "config: meta.2.trigger: there is no file meta.pkl"
    assert message in copy.snakemake("-n", "round3_logp", fails=True)


@pytest.fixture(scope="module")
def chain(finished, tmp_path_factory) -> Copy:
    """Return a run whose round 1 starts from a run's meta file and whose round 2 from AutoCode's offline data."""
    folder = tmp_path_factory.mktemp("entering") / "chain"
    rows = {"file": "offline.pkl", "format": "task"}
    copy = Copy(folder, entering(finished, meta={1: {"auto": "meta.pkl"}}, rows={2: rows}))
    shutil.copy(finished.path("meta/r1_auto_q2responses_arithmetic.pkl"), folder / "meta.pkl")
    export("data", finished.path("data/offline_small_r1_arithmetic.pkl"), folder / "offline.pkl")

    copy.snakemake("runs/entering/checkpoints/r2/checkpoint.json")
    return copy


@pytest.mark.slow
def test_the_chain_goes_on_from_a_meta_file_and_from_rows(chain, finished):
    run = chain.folder / "runs/entering"
    first, second = (read_json(run / f"checkpoints/r{n}/checkpoint.json") for n in (1, 2))

    # A run's own answers keep their tokens and their policy, so their ratios are taken.
    assert first["start"] == read_json(finished.path("checkpoints/r0/checkpoint.json"))["digest"]
    assert (first["foreign"], first["updates"] > 0) == (0, True)
    # AutoCode's rows do not say which policy wrote them.
    rows = read_pickle(run / "data/offline_small_r2_entering.pkl")
    assert second["foreign"] == second["rows"] > 10
    assert {row["policy"] for row in rows} == {"foreign"}
    assert second["start"] == first["digest"]

    assert not (run / "results").exists()
    assert read_json(run / "meta/r1_auto_q2responses_entering.json")["inputs"].keys() >= {"meta.pkl"}
    assert read_json(run / "data/offline_small_r2_entering.json")["inputs"].keys() >= {"offline.pkl"}


@pytest.mark.slow
def test_an_edited_file_reruns_the_chain_from_there(chain):
    target = "runs/entering/checkpoints/r2/checkpoint.json"
    assert NOTHING_TO_DO in chain.snakemake("-n", target)

    records = read_pickle(chain.folder / "offline.pkl")
    write_pickle(chain.folder / "offline.pkl", records[1:])
    pending = jobs(chain.snakemake("-n", target))
    write_pickle(chain.folder / "offline.pkl", records)

    assert {"import_rows", "logp", "train"} <= pending
    assert not {"import_meta", "construct_data"} & pending
