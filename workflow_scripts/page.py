"""Write a run's page: one HTML file with its curves, answers, training, records and cost. It opens without a network.

    snakemake --profile local report
    python -m workflow_scripts.page --run runs/arithmetic --output page.html
    python -m workflow_scripts.page --run runs/arithmetic runs/again --output comparison.html

The page has the answers of all rounds to the same questions, side by side, with filters. `--answers` limits their
number; questions whose rewards change from round to round come first. `--closing` also prints three answers to one
question over the rounds, and what to type next, as the end of a run does; then a page that would take long is left out.

Several runs of one task are compared: their metrics, their answers to the same eval questions, their cost, and what
differs in their configs.
"""

from pathlib import Path

from workflow_scripts import tasks
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.running.cli import arguments, run
from workflow_scripts.report import task_of

QUICK = 200e6  # bytes of graded answers up to which the end of a run writes the page


def compare(folders: list[Path], task: str | None, output: Path, most_answers: int) -> None:
    """Write the page that compares several runs. Raise BadInput if they are of different tasks."""
    from workflow_scripts.overview.page.compare import write_comparison

    of_runs = {folder: task or task_of(folder) for folder in folders}
    if len(set(of_runs.values())) > 1:
        listed = ", ".join(f"{folder} ({name})" for folder, name in of_runs.items())
        raise BadInput(f"--run: these runs are of different tasks, whose metrics cannot be compared: {listed}")

    metrics = tasks.part_class(of_runs[folders[0]], "Evaluation").metrics
    write_comparison(folders, metrics, output, most_answers)
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--run", required=True, type=Path, nargs="+", help="folders of runs, such as runs/arithmetic")
    parser.add_argument("--task", help="name of the task (default: the one that the run's folder notes)")
    parser.add_argument("--answers", type=int, default=4000, help="answers on the page, at most")
    parser.add_argument("--closing", action="store_true", help="print answers to one question, and what to type next")
    parser.add_argument("--output", type=Path, help="the page (default: report/report.html in the run's folder)")
    args = parser.parse_args()

    for folder in args.run:
        if not folder.is_dir():
            raise BadInput(f"{folder}: nothing has been made here yet")
    if len(args.run) > 1:
        compare(args.run, args.task, args.output or Path("comparison.html"), args.answers)
        return
    [folder] = args.run

    from workflow_scripts.overview.closing import closing
    from workflow_scripts.overview.page.write import write_page

    output = args.output or folder / "report/report.html"
    is_quick = sum(path.stat().st_size for path in folder.rglob("*_matchlog.pkl")) < QUICK
    if is_quick or not args.closing:
        metrics = tasks.part_class(args.task or task_of(folder), "Evaluation").metrics
        write_page(folder, metrics, output, args.answers)

    if args.closing:
        print("\n".join(closing(folder, output if is_quick else None)))
    else:
        print(f"{output}: {output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    run(main)
