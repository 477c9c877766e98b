"""Runs side by side: the last round's figures on the terminal, and every round's as curves.

python -m workflow_scripts.compare_runs --task reference --runs runs/hard runs/random --plot compared.svg
"""

from pathlib import Path

from workflow_scripts import tasks
from workflow_scripts.core.cli import arguments, run
from workflow_scripts.core.plots import plotted
from workflow_scripts.core.records import BadInput
from workflow_scripts.report import rounds_of


def show(runs: dict[str, list[dict]], figures: dict) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for name in ("run", "round", *(label for label, _ in figures.values()), "seconds of all rounds"):
        table.add_column(name, justify="left" if name == "run" else "right")
    for name, rows in runs.items():
        last = rows[-1]
        cells = ["" if last[key] is None else f"{last[key]:{form}}" for key, (_, form) in figures.items()]
        table.add_row(name, str(last["round"]), *cells, f"{sum(row['seconds'] for row in rows):.0f}")
    Console(width=max(100, 24 * (len(figures) + 3))).print(table)


def plot(runs: dict[str, list[dict]], figures: dict, path: str) -> None:
    with plotted(path, len(figures), width=5) as axes:
        for axis, (key, (label, form)) in zip(axes, figures.items()):
            for name, rows in runs.items():
                axis.plot([row["round"] for row in rows], [row[key] for row in rows], marker="o", label=name)
            axis.set(title=label, xlabel="round")
            if form.endswith("%"):
                axis.set(ylim=(-0.03, 1.03))
            axis.grid(alpha=0.3)
            axis.legend()


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--task", required=True, help="a module of workflow_scripts/tasks")
    parser.add_argument("--runs", required=True, nargs="+", help="folders of runs, such as runs/arithmetic")
    parser.add_argument("--plot", help="write the curves (.svg) here")
    args = parser.parse_args()
    figures = tasks.load(args.task).FIGURES
    runs = {Path(folder).name: rounds_of(Path(folder), list(figures)) for folder in args.runs}
    if empty := [folder for folder in args.runs if not runs[Path(folder).name]]:
        raise BadInput(f"{empty[0]}/evaluation has no r*.json yet")
    show(runs, figures)
    if args.plot:
        plot(runs, figures, args.plot)


if __name__ == "__main__":
    run(main)
