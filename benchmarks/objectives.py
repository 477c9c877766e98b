"""A scorecard of all objectives: each trains the same checkpoint on the same answers of one round, with several seeds.

    snakemake --profile local round1_data
    python -m benchmarks.objectives                    # all objectives, five seeds: about 40 minutes on two idle cores
    python -m benchmarks.objectives --seeds 1 --questions 24 --prompts 24 --only clip dpo     # a smaller form

Trainers that sample while they train cannot hold the answers fixed, so they compare objectives together with the
answers that each happened to sample. Here every objective starts from the default experiment's round 0 and learns from
the same graded answers of round 1, which are stored with their log-probs. Objectives on pairs get right and wrong
answers to the same questions; `sft` gets the right answers.

For each objective the table shows, as means over seeds with 95 % intervals, the gain in accuracy on the eval questions
(greedy, in percentage points), the KL per token between start and result on the round's answers, the effective share of
the sample at the end, and the seconds of training. A training that is in the output file is not repeated, so a run that
was stopped goes on; delete the file to begin anew. It writes benchmarks/out/objectives.{json,svg}.
"""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import yaml
from rich.console import Console
from rich.table import Table
from scipy import stats

from benchmarks.common import OUT
from workflow_scripts import construct_data, evaluate, generate, grade, logp, train
from workflow_scripts.config.sections import Train
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json, write_json
from workflow_scripts.core.identity import digest
from workflow_scripts.core.pickles import read_pickle, write_pickle
from workflow_scripts.core.running import plugins
from workflow_scripts.core.running.manifest import write_manifest
from workflow_scripts.core.running.plots import figure

# What an objective needs beside the settings of the default experiment. β and limits are those of the papers.
OWN: dict[str, dict[str, Any]] = {
    "cispo": {"ratio_cap": 5.0},
    "gspo": {"clip_low": 3e-4, "clip_high": 4e-4},
    "simpo": {"dpo_beta": 2.0},
}
METRICS = ("gain", "kl", "ess", "seconds")


def stage(module: ModuleType, *options: Any) -> None:
    """Run a stage in this process."""
    saved = sys.argv
    sys.argv = [module.__name__, *map(str, options)]
    try:
        module.main()
    finally:
        sys.argv = saved


# ---------------------------------------------------------------- data


def prepare(run: Path, place: Path, prompts: int | None, questions: int | None) -> None:
    """Write the rows of all objectives with their log-probs under the start, and the eval questions."""
    start = run / "checkpoints/r0/checkpoint.json"
    [meta] = run.glob("meta/r1_auto_*.pkl")
    entries = read_pickle(meta)
    chosen = sorted(entries)[:prompts]
    write_pickle(place / "meta.pkl", {name: entries[name] for name in chosen})
    write_manifest(place / "meta.pkl", [], {})

    settings = {"advantage": "group"}
    switches = ("--task", "math", "--task-settings", json.dumps({"switches": ["all", "mixed"]}))
    options = ("--settings", json.dumps(settings), "--model", start, "--output", place / "rows.pkl")
    stage(construct_data, *switches, "--auto", place / "meta.pkl", *options)
    rows = read_pickle(place / "rows.pkl")

    write_rows(place / "right.pkl", [row for row in rows if row["advantage"] > 0])
    write_rows(place / "pairs.pkl", pairs_of(rows))
    for name in ("rows", "pairs"):
        score(place / f"{name}.pkl", start, place / f"{name}_logp.pkl")

    frame = pd.read_parquet(run / "prompts/eval.parquet").sort_values("id")
    frame.head(questions or len(frame)).to_parquet(place / "eval.parquet")


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write training rows with their manifest."""
    write_pickle(path, rows)
    write_manifest(path, [], {}, rows=len(rows))


def pairs_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return pairs of a right and a wrong answer to one question. Each answer is in at most one pair."""
    by_prompt: dict[str, tuple[list, list]] = {}
    for row in rows:
        by_prompt.setdefault(row["prompt_id"], ([], []))[row["advantage"] < 0].append(row)

    pairs = []
    for prompt, (right, wrong) in sorted(by_prompt.items()):
        for number, (chosen, rejected) in enumerate(zip(right, wrong)):
            name = f"{prompt}.{number}"
            pairs.append(chosen | {"uid": f"{name}.chosen", "pair": name, "advantage": 1.0})
            pairs.append(rejected | {"uid": f"{name}.rejected", "pair": name, "advantage": -1.0})

    return pairs


def score(data: Path, checkpoint: Path, output: Path) -> dict[str, np.ndarray]:
    """Return the log-probs of rows under a checkpoint, by uid."""
    stage(logp, "--data", data, "--model", checkpoint, "--output", output)
    return read_pickle(output)


# ---------------------------------------------------------------- one training


def settings_of_objective(name: str, epochs: int | None) -> dict[str, Any]:
    """Return the training settings of the default experiment with another objective."""
    settings = yaml.safe_load(Path("config.yaml").read_text())["train"] | OWN.get(name, {}) | {"objective": name}
    if epochs:
        settings["epochs"] = epochs
    return settings


def accuracy(checkpoint: Path, questions: Path, folder: Path) -> float:
    """Return a checkpoint's accuracy on the eval questions, answered greedily. `folder` is emptied first."""
    config = yaml.safe_load(Path("config.yaml").read_text())
    sampling = {"eval": config["generate"]["eval"], "batch_size": config["generate"]["batch_size"]}
    fresh(folder)

    asked = ("--prompts", questions, "--model", checkpoint, "--version", "eval", "--template", config["template"])
    answers, graded, metrics = folder / "answers.pkl", folder / "graded.pkl", folder / "metrics.json"
    stage(generate, "--task", "math", *asked, "--settings", json.dumps(sampling), "--output", answers)
    stage(grade, "--task", "math", "--results", answers, "--output", graded)
    stage(evaluate, "--task", "math", "--results", graded, "--round", 1, "--output", metrics)
    return read_json(metrics)["accuracy"]


def fresh(folder: Path) -> Path:
    """Return an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def measure(run: Path, place: Path, settings: dict[str, Any], seed: int, before: float) -> dict[str, Any]:
    """Train with an objective and a seed, and return what came of it."""
    start = run / "checkpoints/r0/checkpoint.json"
    section = Train.model_validate(settings)
    data = "pairs" if section.unit == "pairs" else "right" if section.objective == "sft" else "rows"
    options: list[Any] = []
    if section.needs_behaviour:
        options += ["--logp", place / f"{data}_logp.pkl"]
    if section.needs_reference:
        options += ["--ref-logp", place / f"{data}_logp.pkl", "--reference", start]

    trained = fresh(place / "trained")
    begin = time.perf_counter()
    stage(train, "--data", place / f"{data}.pkl", "--model", start, "--settings", json.dumps(settings), "--seed", seed,
          "--round", 1, *options, "--state", trained / "state", "--output", trained / "checkpoint.json")  # fmt: skip
    seconds = time.perf_counter() - begin

    checkpoint = trained / "checkpoint.json"
    history = read_json(trained / "history.json")
    after = accuracy(checkpoint, place / "eval.parquet", place / "eval")
    old = read_pickle(place / "rows_logp.pkl")
    new = score(place / "rows.pkl", checkpoint, fresh(place / "scored") / "logp.pkl")
    differences = np.concatenate([old[uid] - new[uid] for uid in old])
    return {
        "gain": 100 * (after - before),
        "accuracy": after,
        "kl": float(differences.mean()),
        "ess": history[-1].get("ess"),
        "loss": history[-1]["loss"],
        "updates": len(history),
        "seconds": seconds,
    }


# ---------------------------------------------------------------- all of them


def summary(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the mean of each metric over the seeds of each objective, with half the width of its 95 % interval."""
    of_objectives: dict[str, dict[str, Any]] = {}

    for name in sorted({result["objective"] for result in runs}):
        chosen = [result for result in runs if result["objective"] == name]
        of_objectives[name] = {"seeds": len(chosen)}
        for metric in METRICS:
            values = [result[metric] for result in chosen if result[metric] is not None]
            if values:
                of_objectives[name][metric] = float(np.mean(values))
                of_objectives[name][f"{metric}_plus_minus"] = half_width(values)

    return of_objectives


def half_width(values: list[float]) -> float | None:
    """Return half the width of Student's 95 % interval of a mean; None for a single value."""
    if len(values) < 2:
        return None
    return float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))


def show(result: dict[str, Any]) -> None:
    """Print the table of a result file."""
    title = f"{len(result['runs'])} trainings; accuracy before: {result['before']:.1%}"
    table = Table("objective", "seeds", "gain, points", "KL per token", "effective share", "seconds", title=title)

    for name, means in sorted(result["summary"].items(), key=lambda item: -item[1]["gain"]):
        cells = []
        for metric in METRICS:
            if metric not in means:
                cells.append("–")
                continue
            spread = means[f"{metric}_plus_minus"]
            cells.append(f"{means[metric]:.3g}" + ("" if spread is None else f" ± {spread:.2g}"))
        table.add_row(name, str(means["seeds"]), *cells)

    Console(width=120).print(table)


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw the gain of each objective against the KL that it moved the policy by."""
    with figure(path, 1, width=6) as [axes]:
        for name, means in result["summary"].items():
            axes.errorbar(means["kl"], means["gain"], means["gain_plus_minus"] or 0, fmt="o", label=name)
        axes.set(
            xlabel="KL per token from the start", ylabel="gain in accuracy, points", title="one round, same answers"
        )
        axes.legend(fontsize="small")


def main() -> None:
    known = plugins.names("training/objectives")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/arithmetic"), help="the run whose round 1 is used")
    parser.add_argument("--only", nargs="+", choices=known, default=known, help="objectives (default: all)")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds (default: 5)")
    parser.add_argument("--prompts", type=int, help="train on the answers to so many questions (default: all)")
    parser.add_argument("--questions", type=int, help="number of eval questions (default: all)")
    parser.add_argument("--epochs", type=int, help="passes over the rows (default: those of config.yaml)")
    parser.add_argument("--output", type=Path, default=OUT / "objectives.json", help="the .json to write")
    args = parser.parse_args()

    if not list(args.run.glob("meta/r1_auto_*.pkl")):
        raise BadInput(
            f"{args.run}: there are no answers of round 1; run `snakemake --profile local round1_data` first"
        )

    place = args.output.with_suffix("")
    inputs = {"run": str(args.run), "prompts": args.prompts, "questions": args.questions}
    result = read_json(args.output) if args.output.exists() else {}
    if result.get("inputs") != inputs or not (place / "rows_logp.pkl").exists():
        prepare(args.run, fresh(place), args.prompts, args.questions)
        before = accuracy(args.run / "checkpoints/r0/checkpoint.json", place / "eval.parquet", place / "eval")
        result = {"inputs": inputs, "before": before, "runs": [], "summary": {}}
        write_json(args.output, result)

    for seed in range(args.seeds):
        for name in args.only:
            settings = settings_of_objective(name, args.epochs)
            key = digest([settings, seed])
            if any(earlier["key"] == key for earlier in result["runs"]):
                continue
            measured = measure(args.run, place, settings, seed, result["before"])
            result["runs"].append({"key": key, "objective": name, "seed": seed, **measured})
            result["summary"] = summary(result["runs"])
            write_json(args.output, result)

    show(result)
    plot(result, args.output.with_suffix(".svg"))


if __name__ == "__main__":
    main()
