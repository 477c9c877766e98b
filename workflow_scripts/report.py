"""Show the rounds of a run side by side: a table on the terminal, or a CSV file and a plot. Several runs: their curves.

The table has the 95 % interval of the first metric and its change since the evaluated round before and since round 0.
A change within noise is marked with "≈" (paired test, core/significance.py). In the plot, bands are the intervals.

python -m workflow_scripts.report --run runs/arithmetic
python -m workflow_scripts.report --run runs/recommend-tiny runs/e_high_20 --plot both.svg
"""

import csv
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from workflow_scripts import tasks
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json, replacing
from workflow_scripts.core.running.cli import add_code_argument, arguments, run
from workflow_scripts.core.running.plots import figure
from workflow_scripts.core.running.soundness import check
from workflow_scripts.core.significance import NOISE
from workflow_scripts.evaluate import is_general

Metrics = dict[str, tuple[str, str]]  # metric → (label, format)
Row = dict[str, Any]
Curves = dict[str, tuple[list[Row], str, float]]  # label → (rows, column, line width)


# ---------------------------------------------------------------- reading


def task_of(folder: Path) -> str:
    """Return the task of a run, which the workflow notes in the run's folder."""
    note = folder / "run.json"
    if not note.is_file():
        raise BadInput(
            f"{folder}: there is no {note.name}, which names the run's task; give the task with --task"
            if folder.is_dir()
            else f"{folder}: nothing has been made here yet"
        )
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


def general_metrics(folder: Path) -> list[str]:
    """Return the metrics of a run that are none of its task's: of several samples, and of parts of the reward.

    A metric that only some eval sets have, such as pass@16, is listed with the set's name after it.
    """
    names: dict[str, None] = {}
    for path in sorted(folder.glob("evaluation/r*.json")):
        evaluation = read_json(path)
        names |= dict.fromkeys(name for name in evaluation if is_general(name))
        for part, values in evaluation.get("by_set", {}).items():
            own = [name for name in values if is_general(name) and name not in evaluation]
            names |= dict.fromkeys(f"{name} {part}" for name in own)
    return list(names)


def cut_off(folder: Path, number: int) -> float:
    """Return the share of a checkpoint's eval answers that were cut off, because the context or max_tokens was full."""
    manifests = [read_json(path) for path in folder.glob(f"evaluation/r{number}/**/*.json") if "." not in path.stem]
    finishes = [manifest["finishes"] for manifest in manifests if "finishes" in manifest]
    total = sum(sum(counts.values()) for counts in finishes)
    return sum(counts.get("length", 0) for counts in finishes) / max(1, total)


def rounds_of(folder: Path, names: list[str]) -> list[Row]:
    """Return one flat row per evaluated round: {metric} of all answers, {metric set} and {metric level} of some.

    `low {metric}` and `high {metric}` are its interval. `change_before {metric}` and `change_round0 {metric}` compare
    it with other rounds, and `p_before` and `p_round0` are the p-values. Metrics of several samples have "@" in their
    name. The questions of an eval set without levels have its name as their level, so they come once.
    If rounds answer only a part of the prompts, `passes` tells how often all prompts were answered until then. If some
    answers were cut off, `cut_off` is their share.
    """
    rows = []
    passes = passes_of(folder)

    for path in sorted(folder.glob("evaluation/r*.json"), key=lambda path: int(path.stem[1:])):
        check(path)
        evaluation = read_json(path)
        parts = {"": evaluation} | evaluation.get("by_set", {}) | evaluation["by_level"]
        general = dict.fromkeys(name for values in parts.values() for name in values if is_general(name))
        shown_names = [*names, *general]

        row: Row = {"round": evaluation["round"]}
        for part, values in parts.items():
            own_names = [name for name in shown_names if name in names or name in values]
            row |= {f"{name} {part}".strip(): values.get(name) for name in own_names}
        for part, values in parts.items():
            for name in shown_names:
                row |= uncertainty(values, name, f"{name} {part}".strip())
        if judge := evaluation.get("judge"):
            row |= {"judge_wins": judge["wins"], "p_judge": judge["p"]}
            row |= {f"{side} judge_wins": judge[side] for side in ("low", "high") if side in judge}
        if passes:
            row["passes"] = passes.get(evaluation["round"])
        row |= suite_columns(evaluation)
        row["cut_off"] = round(cut_off(folder, evaluation["round"]), 4)
        row["n"] = evaluation["n"]
        row["seconds"] = round(seconds_of(folder, evaluation["round"]), 1)
        rows.append(row)

    if not any(row["cut_off"] for row in rows):
        for row in rows:
            del row["cut_off"]
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


def uncertainty(values: dict[str, Any], name: str, column: str) -> Row:
    """Return the interval of a metric and its changes, as columns; only those that the evaluation has."""
    row = {}
    for side in ("low", "high"):
        if name in values.get("intervals", {}):
            row[f"{side} {column}"] = values["intervals"][name][side]

    for other, comparisons in values.get("against", {}).items():
        if name in comparisons:
            row[f"change_{other} {column}"] = comparisons[name]["difference"]
            row[f"p_{other} {column}"] = comparisons[name]["p"]

    return row


def levels_of(rows: list[Row], first: str) -> list[str]:
    """Return the suffixes of the levels' columns, after "" for all answers."""
    return ["", *(name.removeprefix(first) for name in rows[0] if name.startswith(f"{first} "))]


# ---------------------------------------------------------------- showing


def show(rows: list[Row], metrics: Metrics, title: str, general: Sequence[str]) -> None:
    """Print the rounds as a table; a cell has the first two metrics of a level.

    `general` names the metrics that are none of the task's.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    metrics = dict(islice(metrics.items(), 2))
    levels = levels_of(rows, next(iter(metrics)))
    labels = " / ".join(label for label, _ in metrics.values())
    table = Table(title=f"{title}: {labels}", title_justify="left", box=box.SIMPLE_HEAD)

    passes = [name for name in ("passes", "cut_off") if name in rows[0]]
    first, (_, form) = next(iter(metrics.items()))
    further = further_columns(rows, first, form, general)

    table.add_column("round", justify="right", no_wrap=True)
    for name in ("all", *further, *(level.strip() for level in levels[1:]), *passes, "n", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)

    for number, row in enumerate(rows):
        cells = []
        for level in levels:
            values = [shown(row.get(f"{name}{level}"), form) for name, (_, form) in metrics.items()]
            cells.append(" / ".join(values))
        cells[1:1] = [column[number] for column in further.values()]
        cells += [str(row[name]) for name in passes]
        table.add_row(str(row["round"]), *cells, str(row["n"]), f"{row['seconds']:.0f}")

    console = Console(width=max(100, 30 + 22 * (len(levels) + len(further))))
    console.print(table)
    if any(key.startswith("p_") for row in rows for key in row):
        console.print(f"95% interval and changes: {metrics[first][0]}. ≈: within noise (paired test, p ≥ {NOISE})")


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


def further_columns(rows: list[Row], first: str, form: str, general: Sequence[str]) -> dict[str, list[str]]:
    """Return the cells of the interval of the first metric, its changes, and the metrics of several samples."""
    columns = {
        "95% interval": [range_of(row.get(f"low {first}"), row.get(f"high {first}"), form) for row in rows],
        "since before": [change_of(row, "before", first, form) for row in rows],
        "since round 0": [change_of(row, "round0", first, form) for row in rows],
    }
    for name in sampled_metrics(general):
        columns[name] = [shown(row.get(name), ".1%") for row in rows]
    for name, label in reward_metrics(general).items():
        columns[label] = [shown(row.get(name), ".3f") for row in rows]
    columns["wins by the judge"] = [wins_of(row) for row in rows]

    return {name: cells for name, cells in columns.items() if any(cells)}


def sampled_metrics(general: Sequence[str]) -> list[str]:
    """Return the metrics of several samples that are shown: avg@n, and pass@k and maj@k with the largest k.

    A metric that only one eval set has ends with the set's name.
    """
    largest: dict[tuple[str, str], int] = {}
    for name in general:
        kind, at, rest = name.partition("@")
        k, _, part = rest.partition(" ")
        if at:
            largest[kind, part] = max(int(k), largest.get((kind, part), 0))

    return [f"{kind}@{k} {part}".strip() for (kind, part), k in largest.items()]


def reward_metrics(general: Sequence[str]) -> dict[str, str]:
    """Return the metrics of a composed reward, the sum and each part, with their labels."""
    return {name: name.removeprefix("part ").replace("_", " ") for name in general if "@" not in name}


def wins_of(row: Row) -> str:
    """Return the judge's share of wins as text, with "≈" if it is within noise of one half."""
    if "judge_wins" not in row:
        return ""
    return f"{'≈ ' if row['p_judge'] >= NOISE else ''}{row['judge_wins']:.1%}"


def shown(value: float | None, form: str) -> str:
    """Return a metric as text; a dash if the round has none."""
    return "–" if value is None else f"{value:{form}}"


def range_of(low: float | None, high: float | None, form: str) -> str:
    """Return an interval as text, such as 93.9–97.9%."""
    if low is None or high is None:
        return ""
    return f"{low:{form}}".removesuffix("%") + f"–{high:{form}}"


def change_of(row: Row, other: str, first: str, form: str) -> str:
    """Return the change of the first metric since another round as text, with "≈" if it is within noise."""
    change = row.get(f"change_{other} {first}")
    if change is None:
        return ""
    return f"{'≈ ' if row[f'p_{other} {first}'] >= NOISE else ''}{change:+{form}}"


def curves_of(runs: dict[str, list[Row]], name: str, first: str) -> Curves:
    """Return the curves of a metric: of one run by level, of several runs overall."""
    if len(runs) > 1:
        return {run: (rows, name, 2.0) for run, rows in runs.items()}

    [rows] = runs.values()
    curves = {}
    for level in levels_of(rows, first):
        label = level.strip().replace("_", " ") or "all"
        curves[label] = rows, f"{name}{level}", 1.2 if level else 2.5

    return curves


def plot(runs: dict[str, list[Row]], metrics: Metrics, path: str, general: Sequence[str] = ()) -> None:
    """Draw the curves of all metrics side by side, and for one run those of several samples and of reward parts."""
    rounds = sorted({row["round"] for rows in runs.values() for row in rows})
    first = next(iter(metrics))
    panels = [(label, form, curves_of(runs, name, first)) for name, (label, form) in metrics.items()]

    if len(runs) == 1:
        [rows] = runs.values()
        sampled: Curves = {name: (rows, name, 2.0) for name in sampled_metrics(general)}
        rewards: Curves = {label: (rows, name, 2.0) for name, label in reward_metrics(general).items()}
        panels += [("several samples", ".1%", sampled)] if sampled else []
        panels += [("parts of the reward", ".3f", rewards)] if rewards else []
        judged: Curves = {"against the round before": (rows, "judge_wins", 2.0)}
        suites: Curves = {name: (rows, name, 2.0) for name in suite_metrics(rows)}
        panels += [("benchmark suites", ".3f", suites)] if suites else []
        panels += [("wins by the judge", ".1%", judged)] if any("judge_wins" in row for row in rows) else []

    with figure(path, len(panels), width=5) as axes:
        for axis, (label, form, curves) in zip(axes, panels):
            for curve, (rows, column, width) in curves.items():
                [line] = axis.plot(*points(rows, column), marker="o", lw=width, label=curve)
                draw_band(axis, rows, column, line.get_color())
            axis.set(title=label, xlabel="round", xticks=rounds)
            if form.endswith("%"):
                axis.set(ylim=(-0.03, 1.03))
            axis.grid(alpha=0.3)
            axis.legend()


def points(rows: list[Row], column: str) -> tuple[list[int], list[Any]]:
    """Return the rounds and the values of a column."""
    return [row["round"] for row in rows], [row.get(column) for row in rows]


def draw_band(axis: Any, rows: list[Row], column: str, color: str) -> None:
    """Draw the intervals of a curve as a band, for the rounds that have one."""
    known = [row for row in rows if f"low {column}" in row]
    lows = [row[f"low {column}"] for row in known]
    highs = [row[f"high {column}"] for row in known]
    axis.fill_between([row["round"] for row in known], lows, highs, color=color, alpha=0.15, lw=0)


def write_csv(path: str, rows: list[Row]) -> None:
    """Write the rounds as a CSV file."""
    with replacing(path) as temporary, open(temporary, "w", newline="") as file:
        names = list(dict.fromkeys(name for row in reversed(rows) for name in row))  # round 0 has no changes
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(rows)


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
        plot(runs, metrics, args.plot, general_metrics(Path(args.run[0])))
    if args.csv:
        [rows] = runs.values()
        write_csv(args.csv, rows)
    if not (args.csv or args.plot):
        for folder, rows in runs.items():
            show(rows, metrics, folder, general_metrics(Path(folder)))
            show_suites(rows, folder)


if __name__ == "__main__":
    run(main)
