"""The rounds of a run side by side: a table on the terminal, or a CSV file and a plot; of several runs, their curves.

python -m workflow_scripts.report --task arithmetic --run runs/arithmetic
python -m workflow_scripts.report --task recommend --run runs/recommend-tiny runs/e_high_20 --plot both.svg
"""

import csv
import re
from itertools import islice
from pathlib import Path

from workflow_scripts import tasks
from workflow_scripts.core.cli import arguments, run
from workflow_scripts.core.plots import plotted
from workflow_scripts.core.records import BadInput, read_json, replacing


def seconds_of(folder: Path, number: int) -> float:
    """Seconds of all jobs of a round, from Snakemake's benchmark files; round 0 has the preparations too."""
    total = 0.0
    for path in folder.glob("benchmarks/**/*.tsv"):
        found = re.search(r"(?:^|/|_)r(\d+)(?:$|/|_|\.)", str(path.relative_to(folder)))
        if int(found[1] if found else 0) == number:
            with open(path, newline="") as file:
                total += sum(float(row["s"]) for row in csv.DictReader(file, delimiter="\t"))
    return total


def rounds_of(folder: Path, names: list[str]) -> list[dict]:
    """One flat row per evaluated round: {figure} of all answers, {figure level} of those to a level's questions."""
    rows = []
    for path in sorted(folder.glob("evaluation/r*.json"), key=lambda p: int(p.stem[1:])):
        found = read_json(path)
        row = {"round": found["round"]} | {name: found.get(name) for name in names}
        for level, values in found["by_level"].items():
            row |= {f"{name} {level}": values.get(name) for name in names}
        rows.append(row | {"n": found["n"], "seconds": round(seconds_of(folder, found["round"]), 1)})
    return rows


def levels_of(rows: list[dict], first: str) -> list[str]:
    """The levels of the questions, after "" for all of them."""
    return ["", *(name.removeprefix(first) for name in rows[0] if name.startswith(f"{first} "))]


def show(rows: list[dict], figures: dict, title: str) -> None:
    """The rounds on the terminal: in a cell, the first two figures of a level."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    figures = dict(islice(figures.items(), 2))
    levels, labels = levels_of(rows, next(iter(figures))), " / ".join(label for label, _ in figures.values())
    table = Table(title=f"{title}: {labels}", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("round", *(level.strip() or "all" for level in levels), "n", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        cells = [
            " / ".join(f"{row.get(f'{k}{level}', 0):{form}}" for k, (_, form) in figures.items()) for level in levels
        ]
        table.add_row(str(row["round"]), *cells, str(row["n"]), f"{row['seconds']:.0f}")
    Console(width=max(100, 30 + 22 * len(levels))).print(table)


def curves_of(runs: dict[str, list[dict]], name: str, first: str) -> dict[str, tuple[list[int], list, float]]:
    """{label: (rounds, values, line width)} of a figure: of one run by level, of several runs of all answers."""
    if len(runs) > 1:
        return {run: ([row["round"] for row in rows], [row[name] for row in rows], 2.0) for run, rows in runs.items()}
    [rows] = runs.values()
    curves = {}
    for level in levels_of(rows, first):
        values = [row.get(f"{name}{level}") for row in rows]
        curves[level.strip().replace("_", " ") or "all"] = [row["round"] for row in rows], values, 1.2 if level else 2.5
    return curves


def plot(runs: dict[str, list[dict]], figures: dict, path: str) -> None:
    rounds = sorted({row["round"] for rows in runs.values() for row in rows})
    with plotted(path, len(figures), width=5) as axes:
        for axis, (name, (label, form)) in zip(axes, figures.items()):
            for shown, (places, values, width) in curves_of(runs, name, next(iter(figures))).items():
                axis.plot(places, values, marker="o", lw=width, label=shown)
            axis.set(title=label, xlabel="round", xticks=rounds)
            if form.endswith("%"):
                axis.set(ylim=(-0.03, 1.03))
            axis.grid(alpha=0.3)
            axis.legend()


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--task", required=True, help="a module of workflow_scripts/tasks")
    parser.add_argument("--run", required=True, nargs="+", help="folders of runs, such as runs/arithmetic")
    parser.add_argument("--csv", help="write the rows here instead of printing a table; of one run")
    parser.add_argument("--plot", help="write the plot (.svg) here")
    args = parser.parse_args()
    figures = tasks.load(args.task).FIGURES
    runs = {run: rounds_of(Path(run), list(figures)) for run in args.run}
    if missing := [run for run, rows in runs.items() if not rows]:
        raise BadInput(f"{missing[0]}/evaluation has no r*.json yet: run `snakemake --profile local round1_checkpoint`")
    first = next(iter(figures))
    if other := [run for run, rows in runs.items() if rows[0][first] is None]:
        raise BadInput(f"{other[0]}/evaluation has no {first!r}: it is of another task than {args.task}")
    if args.csv and len(runs) > 1:
        raise BadInput(f"--csv: the table is of one run, and --run names {len(runs)}")
    if args.plot:
        plot(runs, figures, args.plot)
    if args.csv:
        [rows] = runs.values()
        with replacing(args.csv) as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), restval="")
            writer.writeheader()
            writer.writerows({name: row.get(name, "") for name in rows[0]} for row in rows)
    if not (args.csv or args.plot):
        for run, rows in runs.items():
            show(rows, figures, run)


if __name__ == "__main__":
    run(main)
