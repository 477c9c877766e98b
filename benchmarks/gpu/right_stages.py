"""Check that stages `logp` and `train` agree with each other, with transformers, and with themselves after a stop."""

import json
import os
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from benchmarks.gpu import right
from benchmarks.gpu.setting import Bench, make_rows, save_checkpoint, small_config
from workflow_scripts import logp, train
from workflow_scripts.core.checkpoint import policy_digest
from workflow_scripts.core.files import read_json
from workflow_scripts.core.pickles import write_pickle
from workflow_scripts.core.running.deadline import OutOfTime, deadline
from workflow_scripts.core.running.manifest import write_manifest
from workflow_scripts.training.logps import round_weights

SETTINGS = {"objective": "clip", "lr": 1e-3, "batch_size": 8, "tokens_per_bin": 256, "warmup": 0}
ROWS = 16


def check(bench: Bench) -> None:
    cases = [("llama", "float32"), ("qwen2", "bfloat16")]
    if bench.shape == "full":
        cases += [("llama", "bfloat16"), ("qwen3", "bfloat16")]

    for family, dtype in cases:
        check_family(bench, family, dtype)


def check_family(bench: Bench, family: str, dtype: str) -> None:
    """Score rows by the stage `logp`, train on them by the stage `train`, and check what comes out."""
    folder = bench.scratch / f"stages-{family}-{dtype}"
    start, model = save_checkpoint(folder / "start", small_config(family, tied=True), bench.device)
    rows = make_rows(ROWS, 1024, 60, 200, holes=True)
    rows = [row | {"policy": policy_digest(start)} for row in rows]
    data = folder / "data.pkl"
    write_pickle(data, rows)
    write_manifest(data, [], {}, rows=len(rows))

    scored = folder / "logp/1_0.pkl"
    settings = json.dumps({"dtype": dtype, "tokens_per_bin": 512})
    stage(logp, "--code", "bench", "--data", data, "--model", start, "--settings", settings, "--output", scored)

    def trained(name: str, *, stops: bool = False) -> Path:
        output = folder / name / "checkpoint.json"
        arguments = ["--code", "bench", "--data", data, "--model", start, "--logp", scored, "--output", output]
        arguments += ["--settings", json.dumps(SETTINGS | {"dtype": dtype}), "--state", folder / f"state-{name}"]
        if stops:
            starts = in_pieces(arguments)
            bench.results.measurement(f"stages, {family}: starts of the interrupted training", starts, "starts")
        else:
            stage(train, *arguments)
        return output

    whole = trained("whole")
    first = read_json(whole.with_name("history.json"))[0]
    name = f"stages, {family}, {dtype}"
    check_ratios(bench, name, first, model, rows, dtype)
    check_resume(bench, name, model, whole, trained("again"), trained("pieces", stops=True))


def stage(module: ModuleType, *arguments: Any) -> None:
    """Run a stage in this process."""
    saved = sys.argv
    sys.argv = [module.__name__, *map(str, arguments)]
    try:
        module.main()
    finally:
        sys.argv = saved


def in_pieces(arguments: list[Any]) -> int:
    """Train with a deadline that is always near, so that each start makes one update; return the number of starts."""
    for starts in range(1, 20):
        os.environ["JOB_DEADLINE"] = str(time.time() + 1)
        deadline.cache_clear()
        try:
            stage(train, *arguments)
            return starts
        except OutOfTime:
            continue
        finally:
            del os.environ["JOB_DEADLINE"]
            deadline.cache_clear()

    raise RuntimeError("the training did not end after 19 starts of one update each")


# ---------------------------------------------------------------- checks


def check_ratios(bench: Bench, name: str, first: dict[str, float], model: str, rows: list, dtype: str) -> None:
    """Check that ratios are 1 in the first update, and that its gradient is that of transformers."""
    stock: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="eager")
    stock = stock.to(bench.device)
    exact, _ = right.one_at_a_time(stock, rows, bench.device)
    _, gradients = right.one_at_a_time(stock, first_update(rows), bench.device)
    noise = 1e-5
    reason = "fp32 rounding: both stages run the same code, in bins of other sizes"

    if dtype == "bfloat16":
        round_weights(stock, torch.bfloat16)
        rounded, _ = right.one_at_a_time(stock, rows, bench.device)
        noise = right.rms(rounded - exact)
        reason = "the rms rounding error of transformers in bf16; both stages run the same code, in bins of other sizes"

    deviation = (2 * max(0.0, first["kl_behaviour"])) ** 0.5  # k3 is δ²/2 for small log-ratios δ
    bench.results.check(f"{name}: rms log-ratio at step 0", deviation, noise, reason)
    spread = max(abs(first["ratio_p05"] - 1), abs(first["ratio_p95"] - 1))
    bench.results.check(f"{name}: 5 % and 95 % of ratios at step 0", spread, 3 * noise, "three times the same")

    norm = sum(gradient.double().square().sum() for gradient in gradients.values()).sqrt().item()
    tolerance = 1e-4 if dtype == "float32" else 0.02
    bench.results.check(
        f"{name}: gradient norm of the first update",
        abs(first["grad_norm"] / norm - 1),
        tolerance,
        "relative to transformers in fp32, one row at a time; bf16 rounds each product by up to 0.4 %",
    )


def first_update(rows: list) -> list:
    """Return the rows of the first update, as training plans them."""
    from workflow_scripts.config.sections import Train
    from workflow_scripts.training.bins import plan_rows

    plan = plan_rows(rows, Train(**SETTINGS), seed=0)
    return [rows[number] for unit in plan.bins[0].update for number in plan.units[unit]]


def check_resume(bench: Bench, name: str, start: str, whole: Path, again: Path, pieces: Path) -> None:
    """Check that a training in pieces ends where a whole one ends, as exactly as the whole one repeats itself."""
    before = load_file(Path(start) / "model.safetensors")
    weights = [load_file(path.with_name("model") / "model.safetensors") for path in (whole, again, pieces)]

    def difference(one: dict, other: dict) -> float:
        return sum((one[name] - other[name]).double().square().sum() for name in one).sqrt().item()

    moved = difference(weights[0], before)
    noise = difference(weights[0], weights[1]) / moved
    bench.results.check(
        f"{name}: stopped and resumed",
        difference(weights[0], weights[2]) / moved,
        3 * noise,
        "relative to how far training moved; three times what two equal runs differ by, which is 0 on a CPU",
    )
