"""The rounds of a run side by side: a table on the terminal, or a CSV file and a plot.

python -m workflow_scripts.report --run runs/arithmetic
"""

import csv
import re
from pathlib import Path

from workflow_scripts.core.cli import arguments, run
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


def rounds_of(folder: Path) -> list[dict]:
    """One flat row per evaluated round."""
    rows = []
    for path in sorted(folder.glob("evaluation/r*.json"), key=lambda p: int(p.stem[1:])):
        figures = read_json(path)
        row = {"round": figures["round"], "accuracy": figures["accuracy"], "code_share": figures["code_share"]}
        for level, values in figures["by_level"].items():
            row |= {f"accuracy {level}": values["accuracy"], f"code_share {level}": values["code_share"]}
        rows.append(row | {"n": figures["n"], "seconds": round(seconds_of(folder, figures["round"]), 1)})
    return rows


def show(rows: list[dict], title: str) -> None:
    """The rounds on the terminal: accuracy and, behind it, the share of answers with code."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    levels = [name.removeprefix("accuracy ") for name in rows[0] if name.startswith("accuracy ")]
    table = Table(title=f"{title}: accuracy / share of answers with code", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("round", "all", *levels, "n", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        parts = ("", *(f" {level}" for level in levels))
        shares = [f"{row.get('accuracy' + part, 0):.1%} / {row.get('code_share' + part, 0):.0%}" for part in parts]
        table.add_row(str(row["round"]), *shares, str(row["n"]), f"{row['seconds']:.0f}")
    Console(width=max(100, 30 + 22 * len(levels))).print(table)


def plot(rows: list[dict], path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), sharex=True, sharey=True)
    for axis, kind, label in zip(axes, ("accuracy", "code_share"), ("accuracy", "share of answers with code")):
        for name in (name for name in rows[0] if name.startswith(kind)):
            level = name.removeprefix(kind).strip().replace("_", " ") or "all"
            values = [row.get(name) for row in rows]
            axis.plot(
                [row["round"] for row in rows], values, marker="o", lw=2.5 if level == "all" else 1.2, label=level
            )
        axis.set(title=label, xlabel="round", ylim=(-0.03, 1.03), xticks=[row["round"] for row in rows])
        axis.grid(alpha=0.3)
        axis.legend()
    figure.tight_layout()
    with replacing(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--run", required=True, help="the run's folder, such as runs/arithmetic")
    parser.add_argument("--csv", help="write the rows here instead of printing a table")
    parser.add_argument("--plot", help="write the plot (.svg) here")
    args = parser.parse_args()
    rows = rounds_of(Path(args.run))
    if not rows:
        raise BadInput(f"{args.run}/evaluation has no r*.json yet: run `snakemake --profile local round1_checkpoint`")
    if args.plot:
        plot(rows, args.plot)
    if args.csv:
        with replacing(args.csv) as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), restval="")
            writer.writeheader()
            writer.writerows({name: row.get(name, "") for name in rows[0]} for row in rows)
    if not (args.csv or args.plot):
        show(rows, args.run)


if __name__ == "__main__":
    run(main)
