"""Tell what a command would compute and cost, before its first job: records, seconds, tokens, money and disk by stage.

    python -m workflow_scripts.plan round5_checkpoint
    python -m workflow_scripts.plan round3_checkpoint --config 'train={lr: 2e-4}'
    python -m workflow_scripts.plan round3_checkpoint --json

Give the target and options of your `snakemake` command. To price a change, edit a prompt or the config, and ask before
you run. Records are counted from the questions, the answers that exist, and what changed. Those of answers and grades
are exact. "At most" marks the grades of answers that are made again, since one that comes out as before is not graded
again; "about" marks the rows of rounds whose data is not selected yet. Seconds, tokens, money and disk are what the
finished jobs of the same stages of this run took, with an interval that should hold in 80 % of cases. A stage of which
no job has finished has no estimate.
"""

import argparse
import json
from dataclasses import asdict

from workflow_scripts.core.running.cli import arguments, run
from workflow_scripts.overview.jobs import survey
from workflow_scripts.overview.plan import Line, Plan, plan_of
from workflow_scripts.overview.words import duration


def parse_arguments() -> tuple[argparse.Namespace, list[str]]:
    parser = arguments(__doc__)
    parser.usage = "%(prog)s TARGET [--json] [snakemake options]"
    parser.add_argument("--json", action="store_true", help="print everything as JSON, for scripts")
    return parser.parse_known_args()


# ---------------------------------------------------------------- the table


def table_of(plan: Plan):
    """Return the plan as a table of rich."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("stage", no_wrap=True)
    for name in ("rounds", "jobs", "records", "seconds of jobs", "tokens", "money", "disk"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")

    for line in plan.lines:
        table.add_row(
            line.stage,
            _rounds(line.rounds),
            str(line.jobs),
            _records(line),
            _range(line.seconds),
            f"{line.tokens:,.0f}" if line.tokens else "",
            f"{line.money:,.2f}" if line.money else "",
            _size(line.bytes),
            Text("; ".join(line.reasons[:3])),
        )
    return table


def _rounds(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return str(numbers[0])
    is_range = numbers[-1] - numbers[0] + 1 == len(numbers)
    return f"{numbers[0]}–{numbers[-1]}" if is_range else ", ".join(map(str, numbers))


def _records(line: Line) -> str:
    if line.records is None:
        return "?" if line.unit else ""
    certainty = "" if line.is_exact else "at most " if line.is_most else "about "
    return f"{certainty}{line.records:,}"


def _range(seconds: tuple[float, float, float] | None) -> str:
    if seconds is None:
        return "unknown"
    low, middle, high = seconds
    if high < 1:
        return "below 1 s"
    return f"{duration(middle)} ({duration(low)} to {duration(high)})"


def _size(count: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.0f} kB" if count else ""


def show(plan: Plan, run: str) -> None:
    """Print the plan."""
    from rich.console import Console

    if not plan.lines:
        print(f"{run}: nothing is pending, so this command would cost nothing.")
        return

    Console(width=140).print(table_of(plan))
    unknown = ", ".join(plan.unknown)
    if plan.seconds:
        rest = f", without {unknown}, of which no job has ever finished in {run}" if unknown else ""
        print(f"Time until the end: {_range(plan.seconds)}, in 80 % of cases{rest}.")
    else:
        print(f"Time until the end: unknown, because no job of {unknown} has ever finished in {run}.")

    disk = sum(line.bytes for line in plan.lines)
    money = sum(line.money for line in plan.lines)
    if disk:
        print(
            f"Disk: about {_size(disk)}, without ledgers and logs; files that are made again take no more than before."
        )
    if money:
        print(f"Money: about {money:,.2f}, in the currency of the prices in the config.")
    if plan.untouched:
        shown = ", ".join(f"{count} of round {number}" for number, count in plan.untouched.items())
        print(f"Left alone: {sum(plan.untouched.values())} finished jobs ({shown}).")


def main() -> None:
    args, names = parse_arguments()
    state = survey(names)
    plan = plan_of(state)

    if args.json:
        print(json.dumps({"run": state.run} | asdict(plan), indent=1))
    else:
        show(plan, state.run)


if __name__ == "__main__":
    run(main)
