"""Tell where a run is: what is done, running, pending or stale and why, and how long the rest takes.

    python -m workflow_scripts.status                              # the run that was started last in this folder
    python -m workflow_scripts.status --watch                      # the same, again and again
    python -m workflow_scripts.status round5_checkpoint --configfile recipes/grpo.yaml
    python -m workflow_scripts.status --json | jq .seconds_left

Give the target and options of your `snakemake` command to ask about another run. The command works while Snakemake
makes the run, because it needs no lock, and on a login node, because it needs neither a GPU nor torch. States:

    done         made, and nothing calls for making it again
    running      a job works on it
    queued       handed to the scheduler, and not started yet
    interrupted  started by a Snakemake process that is gone; the same command goes on from there
    failed       its last attempt failed; its log says why
    stale        made, but a changed setting, file or code calls for making it again
    pending      not made yet

The times that are left follow from what finished jobs of the same stages took in this run.
"""

import argparse
import json
import sys
import time

from workflow_scripts.core.running.cli import arguments, run
from workflow_scripts.overview.jobs import Survey, survey
from workflow_scripts.overview.summary import as_json
from workflow_scripts.workflow import driver


def parse_arguments() -> tuple[argparse.Namespace, list[str]]:
    parser = arguments(__doc__)
    parser.usage = "%(prog)s [TARGET] [--json | --watch] [--all] [snakemake options]"
    parser.add_argument("--json", action="store_true", help="print everything as JSON, for scripts")
    parser.add_argument("--watch", action="store_true", help="show the state again and again, until Ctrl-C")
    parser.add_argument("--every", type=float, default=10, help="seconds from one look of --watch to the next")
    parser.add_argument("--all", action="store_true", help="show each stage of each round in a line of its own")
    return parser.parse_known_args()


def which_run(names: list[str]) -> list[str]:
    """Return the arguments of `snakemake` that name a run; without any, those of the run that was started last."""
    latest = None if names else driver.latest()
    return latest.arguments if latest else names


def watch(names: list[str], every: float, is_full: bool) -> None:
    """Show the state again and again, until Ctrl-C."""
    from rich.live import Live

    from workflow_scripts.overview.screen import screen

    with Live(screen=False, auto_refresh=False) as live:
        try:
            while True:
                live.update(screen(survey(names), is_full), refresh=True)
                time.sleep(every)
        except KeyboardInterrupt:
            pass


def show(state: Survey, is_full: bool) -> None:
    """Print the state on the terminal."""
    from rich.console import Console

    from workflow_scripts.overview.screen import screen

    width = None if sys.stdout.isatty() else 120
    Console(width=width).print(screen(state, is_full))


def main() -> None:
    args, names = parse_arguments()
    names = which_run(names)

    if args.watch:
        watch(names, args.every, args.all)
    elif args.json:
        print(json.dumps(as_json(survey(names)), indent=1))
    else:
        show(survey(names), args.all)


if __name__ == "__main__":
    run(main)
