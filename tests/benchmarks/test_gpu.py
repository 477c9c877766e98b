"""The benchmark of a GPU: it runs anywhere, needs little, keeps what it has, and notices what is wrong."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import results as files
from benchmarks.gpu import right
from benchmarks.gpu.results import Results
from benchmarks.gpu.setting import Bench, make_rows, small_config
from tests.harness import REPOSITORY
from workflow_scripts.training import attention, bins
from workflow_scripts.training.logps import TokenLogps

NEEDED = ("torch", "transformers", "accelerate", "safetensors", "pydantic")

# Hides the packages in the environment variable HIDDEN, as if they were absent.
GUARD = """
import os, sys

class Guard:
    hidden = set(os.environ["HIDDEN"].split())

    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in self.hidden else self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Guard(finder) for finder in sys.meta_path]
"""


def packages_beyond_need() -> set[str]:
    """Return the modules that are installed here but not by the packages that the benchmark may need."""
    names: set[str] = set()
    open_names = list(NEEDED)

    while open_names:
        name = open_names.pop().lower().replace("_", "-")
        if name in names:
            continue
        names.add(name)
        try:
            required = [Requirement(text) for text in requires(name) or []]
        except PackageNotFoundError:  # needed on another platform only
            continue
        open_names += [each.name for each in required if each.marker is None or each.marker.evaluate({"extra": ""})]

    beyond = set()
    for module, owners in packages_distributions().items():
        if not names & {owner.lower().replace("_", "-") for owner in owners}:
            beyond.add(module)
    return beyond


def guarded(folder: Path) -> dict[str, str]:
    """Return an environment in which Python imports nothing but what the benchmark may need."""
    (folder / "sitecustomize.py").write_text(GUARD)
    paths = os.pathsep.join([str(folder), str(REPOSITORY)])
    return os.environ | {"PYTHONPATH": paths, "HIDDEN": " ".join(packages_beyond_need()), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def bench(tmp_path) -> Bench:
    """Return what a part receives, with results in a folder of its own."""
    return Bench("cpu", "tiny", tmp_path / "scratch", Results(tmp_path, "right", time.time()), time.time() + 600)


def lines_of(bench: Bench, kind: str = "check") -> list[dict]:
    return [line for line in files.read_lines(bench.results.folder) if line["kind"] == kind]


# ---------------------------------------------------------------- what it needs


def test_it_imports_only_what_a_bare_machine_has(tmp_path):
    modules = [f"benchmarks.gpu.{part}" for part in command.SHARES if part not in command.NEEDED]
    code = "import importlib\n" + "\n".join(f"importlib.import_module({module!r})" for module in modules)
    environment = guarded(tmp_path)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    forbidden = subprocess.run([sys.executable, "-c", "import pandas"], env=environment, capture_output=True, text=True)
    assert "No module named 'pandas'" in forbidden.stderr  # the guard works


# ---------------------------------------------------------------- wrong code is noticed


def check_a_model(bench: Bench) -> dict[str, bool]:
    """Check one small model and return {check: passed}."""
    rows = right.in_order_of_bins(make_rows(6, 1024, 30, 90, holes=True))
    right.check_model(bench, "llama", small_config("llama", tied=True), rows)
    return {line["name"].split(": ")[1]: line["ok"] for line in lines_of(bench)}


def test_right_code_passes(bench):
    assert all(check_a_model(bench).values())


def test_a_scaled_logit_is_noticed(bench, monkeypatch):
    logits = TokenLogps.logits
    monkeypatch.setattr(TokenLogps, "logits", staticmethod(lambda *arguments: logits(*arguments) * 1.02))
    monkeypatch.setattr("workflow_scripts.training.logps._check_packing", lambda *_: None)  # it would refuse the model
    passed = check_a_model(bench)
    assert not passed["log-probs, fp32"]
    assert files.status_of([*lines_of(bench), {"kind": "end", "status": "ok"}]) == "failed"


def test_a_shifted_mask_is_noticed(bench, monkeypatch):
    collate = bins.collate

    def shifted(rows, pad):
        moved = []
        for row in rows:
            moved.append(row | {"mask": row["mask"][1:] + row["mask"][:1]})
        return collate(moved, pad)

    monkeypatch.setattr(bins, "collate", shifted)
    passed = check_a_model(bench)
    assert not passed["log-probs, fp32"]
    assert not passed["log-probs, bf16"]


def test_attention_that_looks_into_other_rows_is_noticed(bench, monkeypatch):
    loop = attention._by_segment

    def one_segment(query, key, value, scaling, lengths, window=None):
        return loop(query, key, value, scaling, [sum(lengths)], window)

    monkeypatch.setattr(attention, "_by_segment", one_segment)
    right.check_attention(bench)
    assert not all(line["ok"] for line in lines_of(bench))


def test_attention_under_autocast_computes_in_its_type():
    with torch.autocast("cpu", torch.bfloat16):
        assert attention._arithmetic(torch.zeros(1)) == torch.bfloat16
    assert attention._arithmetic(torch.zeros(1)) == torch.float32
    assert attention._arithmetic(torch.zeros(1, dtype=torch.bfloat16)) == torch.bfloat16


# ---------------------------------------------------------------- results are kept


def test_a_part_that_raises_is_recorded_and_its_results_are_kept(tmp_path, monkeypatch, capsys):
    args = command.argparse.Namespace(
        device="cpu", shape="tiny", only=["right"], output=tmp_path, started=time.time(), until=time.time() + 60
    )

    def broken(bench):
        bench.results.check("first", 0.0, 1.0, "a reason")
        bench.results.check("second", float("nan"), 1.0, "a reason")
        raise ValueError("the part is broken")

    monkeypatch.setattr(right, "measure", broken)
    command.run_part(args)

    lines = files.read_lines(tmp_path)
    assert [line["ok"] for line in lines if line["kind"] == "check"] == [True, False]
    assert lines[-1]["status"] == "failed" and "the part is broken" in lines[-1]["error"]
    summary = (tmp_path / files.SUMMARY).read_text()
    assert "ValueError: the part is broken" in summary and "| right | failed | 1 of 2 |" in summary


def test_a_run_that_is_cut_off_keeps_what_it_has(tmp_path):
    results = Results(tmp_path, "right", time.time())
    results.measurement("speed", 12.5, "tokens/s")
    with open(tmp_path / files.LINES, "a") as file:
        file.write('{"part": "right", "kind": "chec')

    lines = files.read_lines(tmp_path)
    assert [line["name"] for line in lines] == ["speed"]
    assert files.status_of(lines) == "running"
    assert "12.5" in (tmp_path / files.SUMMARY).read_text()


def test_a_part_that_takes_too_long_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "GRACE", 0)
    args = command.argparse.Namespace(device="cpu", shape="tiny", output=tmp_path, started=time.time())
    results = Results(tmp_path, "right", time.time())
    command.run_apart(args, "right", time.time(), results)
    assert files.status_of(files.read_lines(tmp_path)) == "cut off"


def test_time_that_parts_leave_over_goes_to_later_ones():
    until = command.plan(["right", "fast"], minutes=10, started=0.0)
    assert until == {"right": pytest.approx(240), "fast": pytest.approx(600)}


# ---------------------------------------------------------------- the whole


@pytest.mark.slow
def test_all_parts_are_ok_on_a_cpu(tmp_path):
    output = tmp_path / "out"
    options = ["--device", "cpu", "--shape", "tiny", "--minutes", "15", "--output", str(output)]
    environment = guarded(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *options],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]

    parts = files.by_part(files.read_lines(output))
    assert list(parts) == list(command.SHARES)
    for part, lines in parts.items():
        assert files.status_of(lines) == ("left out" if part in command.NEEDED else "ok")
    for part in ("right", "fits", "generates", "round"):
        assert any(line["kind"] == "check" for line in parts[part])
    assert any(line["name"] == "tiny: training" for line in parts["fast"])


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="needs trl: run with .venv-trl/bin/python")
def test_trl_is_compared_where_it_is_installed(tmp_path):
    options = ["--device", "cpu", "--shape", "tiny", "--only", "trl", "--output", str(tmp_path)]
    done = subprocess.run([sys.executable, "-m", "benchmarks.gpu", *options], cwd=REPOSITORY)
    assert done.returncode == 0

    lines = [json.loads(line) for line in (tmp_path / files.LINES).read_text().splitlines()]
    assert {"SFT: ours over TRL", "DPO: ours over TRL"} <= {line["name"] for line in lines}
