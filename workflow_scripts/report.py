"""Show the rounds of a run side by side: a table on the terminal, or a CSV file and a plot. Several runs: their curves.

python -m workflow_scripts.report --run runs/arithmetic
python -m workflow_scripts.report --run runs/recommend-tiny runs/e_high_20 --plot both.svg
"""

import csv
import re
from itertools import islice
from pathlib import Path
from typing import Any

from workflow_scripts import tasks
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json, replacing
from workflow_scripts.core.running.cli import add_code_argument, arguments, run
from workflow_scripts.core.running.plots import figure

Metrics = dict[str, tuple[str, str]]  # metric → (label, format)
Row = dict[str, Any]


# ---------------------------------------------------------------- reading


def task_of(folder: Path) -> str:
    """Return the task of a run, which the workflow notes in the run's folder."""
    note = folder / "run.json"
    if not note.is_file():
        raise BadInput(f"{folder}: there is no {note.name}, which names the run's task; give the task with --task")
    return read_json(note)["task"]


def seconds_of(folder: Path, number: int) -> float:
    """Return the seconds of all jobs of a round, from Snakemake's benchmark files; round 0 includes preparations."""
    total = 0.0

    for path in folder.glob("benchmarks/**/*.tsv"):
        match = re.search(r"(?:^|/|_)r(\d+)(?:$|/|_|\.)", str(path.relative_to(folder)))
        if int(match[1] if match else 0) == number:
            with open(path, newline="") as file:
                total += sum(float(row["s"]) for row in csv.DictReader(file, delimiter="\t"))

    return total


def prompts_answered(folder: Path, number: int) -> int:
    """Return how many prompts a round answered if rounds answer only a part of them, else 0."""
    manifests = [read_json(path) for path in folder.glob(f"results/r{number}/auto/*.json") if "." not in path.stem]
    return sum(manifest["prompts"] for manifest in manifests if "slice" in manifest.get("settings", {}))


def passes_of(folder: Path) -> dict[int, float]:
    """Return how often all prompts were answered until each round; nothing if each round answers all of them."""
    if not prompts_answered(folder, 1):
        return {}

    total = read_json(folder / "prompts/train.json")["rows"]
    passes = {0: 0.0}
    answered = 0
    for number in range(1, 1 + sum(1 for _ in folder.glob("results/r*"))):
        answered += prompts_answered(folder, number)
        passes[number] = round(answered / total, 2)

    return passes


def rounds_of(folder: Path, names: list[str]) -> list[Row]:
    """Return one flat row per evaluated round: {metric} of all answers, {metric set} and {metric level} of some.

    The questions of an eval set without levels have its name as their level, so they come once.
    If rounds answer only a part of the prompts, `passes` tells how often all prompts were answered until then.
    """
    rows = []
    passes = passes_of(folder)

    for path in sorted(folder.glob("evaluation/r*.json"), key=lambda path: int(path.stem[1:])):
        evaluation = read_json(path)
        row = {"round": evaluation["round"]} | {name: evaluation.get(name) for name in names}
        for level, values in (evaluation.get("by_set", {}) | evaluation["by_level"]).items():
            row |= {f"{name} {level}": values.get(name) for name in names}
        if passes:
            row["passes"] = passes.get(evaluation["round"])
        row |= suite_columns(evaluation)
        row["n"] = evaluation["n"]
        row["seconds"] = round(seconds_of(folder, evaluation["round"]), 1)
        rows.append(row)

    return rows


def suite_columns(evaluation: Row) -> Row:
    """Return the metrics of benchmark suites as columns, such as `gsm8k: exact_match`, with `low` and `high`."""
    columns: Row = {}

    for suite, summary in evaluation.get("suites", {}).items():
        for metric, values in summary["metrics"].items():
            name = f"{suite}: {metric}"
            columns[name] = values["value"]
            columns |= {f"{side} {name}": values[side] for side in ("low", "high") if side in values}

    return columns


def suite_metrics(rows: list[Row]) -> list[str]:
    """Return the columns with values of benchmark suites, in the order of the rounds."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [name for name in names if ": " in name and not name.startswith(("low ", "high "))]


def levels_of(rows: list[Row], first: str) -> list[str]:
    """Return the suffixes of the levels' columns, after "" for all answers."""
    return ["", *(name.removeprefix(first) for name in rows[0] if name.startswith(f"{first} "))]


# ---------------------------------------------------------------- showing


def show(rows: list[Row], metrics: Metrics, title: str) -> None:
    """Print the rounds as a table; a cell has the first two metrics of a level."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    metrics = dict(islice(metrics.items(), 2))
    levels = levels_of(rows, next(iter(metrics)))
    labels = " / ".join(label for label, _ in metrics.values())
    table = Table(title=f"{title}: {labels}", title_justify="left", box=box.SIMPLE_HEAD)

    passes = ["passes"] if "passes" in rows[0] else []
    for name in ("round", *(level.strip() or "all" for level in levels), *passes, "n", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)

    for row in rows:
        cells = []
        for level in levels:
            values = [f"{row.get(f'{name}{level}', 0):{form}}" for name, (_, form) in metrics.items()]
            cells.append(" / ".join(values))
        cells += [str(row[name]) for name in passes]
        table.add_row(str(row["round"]), *cells, str(row["n"]), f"{row['seconds']:.0f}")

    Console(width=max(100, 30 + 22 * len(levels))).print(table)


def show_suites(rows: list[Row], title: str) -> None:
    """Print the metrics of benchmark suites as a table of their own; nothing if there are none."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    names = suite_metrics(rows)
    if not names:
        return

    table = Table(title=f"{title}: benchmark suites, 95 % interval", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("round", *names):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(str(row["round"]), *(suite_cell(row, name) for name in names))

    Console(width=max(100, 20 + 40 * len(names))).print(table)


def suite_cell(row: Row, name: str) -> str:
    """Return a metric of a suite as text, such as 0.358 ± 0.050; a dash if the round has none."""
    if row.get(name) is None:
        return "–"
    half = f" ± {row[f'high {name}'] - row[name]:.3f}" if f"high {name}" in row else ""
    return f"{row[name]:.3f}{half}"


def curves_of(runs: dict[str, list[Row]], name: str, first: str) -> dict[str, tuple[list[int], list, float]]:
    """Return {label: (rounds, values, line width)} of a metric: of one run by level, of several runs overall."""
    if len(runs) > 1:
        return {run: ([row["round"] for row in rows], [row[name] for row in rows], 2.0) for run, rows in runs.items()}

    [rows] = runs.values()
    curves = {}
    for level in levels_of(rows, first):
        label = level.strip().replace("_", " ") or "all"
        values = [row.get(f"{name}{level}") for row in rows]
        curves[label] = [row["round"] for row in rows], values, 1.2 if level else 2.5

    return curves


def plot(runs: dict[str, list[Row]], metrics: Metrics, path: str) -> None:
    """Draw the curves of all metrics side by side."""
    rounds = sorted({row["round"] for rows in runs.values() for row in rows})

    names = suite_metrics(next(iter(runs.values()))) if len(runs) == 1 else []

    with figure(path, len(metrics) + bool(names), width=5) as axes:
        for axis, (name, (label, form)) in zip(axes, metrics.items()):
            for curve, (places, values, width) in curves_of(runs, name, next(iter(metrics))).items():
                axis.plot(places, values, marker="o", lw=width, label=curve)
            axis.set(title=label, xlabel="round", xticks=rounds)
            if form.endswith("%"):
                axis.set(ylim=(-0.03, 1.03))
            axis.grid(alpha=0.3)
            axis.legend()

        if names:
            plot_suites(axes[-1], next(iter(runs.values())), names)


def plot_suites(axis: Any, rows: list[Row], names: list[str]) -> None:
    """Draw the metrics of benchmark suites by round, with their intervals as bands."""
    for name in names:
        known = [row for row in rows if row.get(name) is not None]
        places = [row["round"] for row in known]
        [line] = axis.plot(places, [row[name] for row in known], marker="o", lw=2.0, label=name)
        if all(f"low {name}" in row for row in known):
            lows, highs = ([row[f"{side} {name}"] for row in known] for side in ("low", "high"))
            axis.fill_between(places, lows, highs, color=line.get_color(), alpha=0.15, lw=0)

    axis.set(title="benchmark suites", xlabel="round", xticks=[row["round"] for row in rows])
    axis.grid(alpha=0.3)
    axis.legend()


def write_csv(path: str, rows: list[Row]) -> None:
    """Write the rounds as a CSV file."""
    with replacing(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), restval="")
        writer.writeheader()
        writer.writerows({name: row.get(name, "") for name in rows[0]} for row in rows)


def main() -> None:
    parser = arguments(__doc__)
    add_code_argument(parser)
    parser.add_argument("--task", help="name of the task (default: the one that the run's folder notes)")
    parser.add_argument("--run", required=True, nargs="+", help="folders of runs, such as runs/arithmetic")
    parser.add_argument("--csv", help="write the rows here instead of printing a table; for one run")
    parser.add_argument("--plot", help="write the plot (.svg) here")
    args = parser.parse_args()

    task = args.task or task_of(Path(args.run[0]))
    metrics: Metrics = tasks.part_class(task, "Evaluation").metrics
    runs = {folder: rounds_of(Path(folder), list(metrics)) for folder in args.run}
    first = next(iter(metrics))

    if missing := [folder for folder, rows in runs.items() if not rows]:
        raise BadInput(f"{missing[0]}/evaluation has no r*.json yet: run `snakemake --profile local round1_checkpoint`")
    if other := [folder for folder, rows in runs.items() if rows[0][first] is None]:
        raise BadInput(f"{other[0]}/evaluation has no {first!r}: this run is of another task than {task}")
    if args.csv and len(runs) > 1:
        raise BadInput(f"--csv: the table is of one run, but --run names {len(runs)}")

    if args.plot:
        plot(runs, metrics, args.plot)
    if args.csv:
        [rows] = runs.values()
        write_csv(args.csv, rows)
    if not (args.csv or args.plot):
        for folder, rows in runs.items():
            show(rows, metrics, folder)
            show_suites(rows, folder)


if __name__ == "__main__":
    run(main)
