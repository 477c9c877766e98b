"""Do the rounds of the tabular twin teach on tables that it was not tuned on?

    python -m benchmarks.tables                              # about 8 minutes of one core for each table and seed
    python -m benchmarks.tables --tables wine weak --seeds 0 1 2
    python -m benchmarks.tables --set train.nll_weight=1 --label nll1

Each table takes the place of breast cancer in recipes/tabular-tiny.yaml; nothing else of the recipe changes. The metric
is Matthews' correlation of gradient boosting that is trained on a checkpoint's rows and tested on real rows. The table
`weak` has four columns that say little about the label; there the rounds should do no harm.

Finished runs are kept, so that the command goes on where it was cut off. --show prints the results that exist. The two
heart tables need the published CSV files: --heart names the folder with cleveland_train.csv, hungarian_train.csv etc.
It writes benchmarks/out/tables[-LABEL].json.
"""

import argparse
import csv
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from scipy import stats

from benchmarks.common import OUT
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json, write_json
from workflow_scripts.tasks.tabular.split_tables import shipped

ROUNDS = 2
RECIPE = Path("recipes/tabular-tiny.yaml")
CORES = 1

# name → (source, features)
TABLES: dict[str, tuple[str, list[str]]] = {
    "cleveland": ("cleveland", ["Age", "RestingBloodPressure", "MaxHeartRate", "OldPeak"]),
    "hungarian": ("hungarian", ["Age", "Sex", "ChestPainType", "MaxHeartRate"]),
    "wine": ("wine", ["alcohol", "hue", "proline"]),
    "diabetes": ("diabetes", ["bmi", "bp", "s5"]),
    "categories": ("cleveland", ["Age", "Sex", "ChestPainType", "ExerciseInducedAngina", "PeakExerciseSTSegmentSlope"]),
    "weak": ("breast_cancer", ["texture_error", "smoothness_error", "symmetry_error", "mean_fractal_dimension"]),
    "twin": ("breast_cancer", ["mean_radius", "mean_texture", "mean_concavity"]),
}


# ---------------------------------------------------------------- tables


def diabetes_classes(path: Path) -> str:
    """Write scikit-learn's diabetes table with a label in place of the quantity: above or below its median."""
    header, lines = shipped("diabetes")
    median = statistics.median(float(cells[-1]) for cells in lines)
    rows = [[*cells[:-1], "high" if float(cells[-1]) > median else "low"] for cells in lines]
    _write(path, header, rows)
    return str(path)


def heart(name: str, folder: Path | None, path: Path) -> str:
    """Write the three published splits of a heart table as one file."""
    files = [folder / f"{name}_{split}.csv" for split in ("train", "val", "test")] if folder else []
    if not files or not all(file.exists() for file in files):
        raise BadInput(f"--heart: there are no files {name}_train.csv, {name}_val.csv and {name}_test.csv in {folder}")

    rows: list[list[str]] = []
    header: list[str] = []
    for file in files:
        with open(file, newline="") as opened:
            header, *lines = csv.reader(opened)
        rows += lines
    _write(path, header, rows)
    return str(path)


def _write(path: Path, header: list[str], rows: list[list[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def table_of(name: str, folder: Path | None) -> dict[str, Any]:
    """Return the section of a table in the config; make its file, if it has one."""
    source, columns = TABLES[name]
    path = OUT / "tables" / f"{source}.csv"

    if source in ("cleveland", "hungarian"):
        return {"file": heart(source, folder, path), "columns": columns}
    if source == "diabetes":
        return {"file": diabetes_classes(path), "columns": columns}
    return {"sklearn": source, "columns": columns}


# ---------------------------------------------------------------- runs


def config_of(name: str, seed: int, label: str, changes: list[str], folder: Path | None) -> dict[str, Any]:
    """Return the recipe with another table and seed, and with further changes such as train.lr=1e-4."""
    config = yaml.safe_load(RECIPE.read_text())
    teachers = {key: table for key, table in config["tabular"]["datasets"].items() if key != TABLES[name][0]}
    own = f"own_{name}"
    config["tabular"] |= {"dataset": own, "datasets": {own: table_of(name, folder), **teachers}}
    config |= {"name": "-".join(filter(None, ["tables", name, str(seed), label])), "seed": seed, "rounds": ROUNDS}
    config["cold_start"]["train"]["threads"] = CORES
    config["train"]["threads"] = CORES

    for change in changes:
        path, _, value = change.partition("=")
        *sections, key = path.split(".")
        section = config
        for part in sections:
            section = section.setdefault(part, {})
        section[key] = yaml.safe_load(value)

    return config


def run(config: dict[str, Any]) -> None:
    """Make the rounds of a config, unless they are there."""
    file = OUT / "configs" / f"{config['name']}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    command = [sys.executable, "-m", "snakemake", f"round{ROUNDS}_checkpoint", "--profile", "local"]
    subprocess.run([*command, "--cores", str(CORES), "--quiet", "all", "--configfile", str(file)], check=True)


def metrics_of(run_name: str) -> list[dict[str, Any]] | None:
    """Return the metrics of all rounds of a run, or None if it is not finished."""
    files = [Path(f"runs/{run_name}/evaluation/r{n}.json") for n in range(ROUNDS + 1)]
    return [read_json(file) for file in files] if all(file.exists() for file in files) else None


# ---------------------------------------------------------------- results


def interval(values: list[float]) -> str:
    """Return the mean with its 95 % interval (Student's t)."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:+.3f} (one seed)"
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:+.3f} ± {half:.3f}"


def show(results: dict[str, dict[int, list[dict[str, Any]]]]) -> None:
    """Print the metrics by table and seed, and the differences between the last round and round 0."""
    changes: list[float] = []

    for name, by_seed in results.items():
        if not by_seed:
            continue
        differences = []
        for seed, rounds in by_seed.items():
            shown = "  ".join(f"{metrics['tstr']:+.3f}" for metrics in rounds)
            valid = "  ".join(f"{metrics['valid']:.1%}" for metrics in rounds)
            target = "  ".join(f"{metrics['columns'][list(metrics['columns'])[-1]]:.2f}" for metrics in rounds)
            print(f"{name:11} seed {seed}  MCC {shown}  (real {rounds[0]['real']:+.3f})  valid {valid}  label {target}")
            differences.append(rounds[-1]["tstr"] - rounds[0]["tstr"])
        print(f"{name:11} round {ROUNDS} - round 0: {interval(differences)}, {len(differences)} seeds")
        changes += differences if name not in ("weak", "twin") else []

    if changes:
        print(f"all tables but `weak` and `twin`: {interval(changes)}, {len(changes)} runs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES), help="tables (default: all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="seeds (default: 0 1 2)")
    parser.add_argument("--heart", type=Path, help="folder with the CSV files of cleveland and hungarian")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="other values of the recipe's keys")
    parser.add_argument("--label", default="", help="names the runs with these values")
    parser.add_argument("--show", action="store_true", help="make nothing, print what is there")
    args = parser.parse_args()

    results: dict[str, dict[int, list[dict[str, Any]]]] = {name: {} for name in args.tables}
    for seed in args.seeds:
        for name in args.tables:
            run_name = "-".join(filter(None, ["tables", name, str(seed), args.label]))
            if not args.show and metrics_of(run_name) is None:
                run(config_of(name, seed, args.label, args.set, args.heart))
            if metrics := metrics_of(run_name):
                results[name][seed] = metrics

    write_json(OUT / f"{'-'.join(filter(None, ['tables', args.label]))}.json", results)
    show(results)


if __name__ == "__main__":
    main()
