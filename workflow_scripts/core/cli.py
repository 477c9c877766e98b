"""What every stage script shares at its edge: messages, progress bars, and clean ends."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from workflow_scripts.core.copies import NUMBER, die_with_parent
from workflow_scripts.core.deadline import STATUS, OutOfTime
from workflow_scripts.core.records import BadInput, faults_of


def say(text: str) -> None:
    """A line for the log; of several processes, the first one's."""
    if not int(os.environ.get("RANK", 0)) and NUMBER not in os.environ:
        print(text, file=sys.stderr, flush=True)


def progress(iterable=None, *, total: int, desc: str, unit: str, disable: bool = False):
    """A progress bar that stays readable in a log file too."""
    from tqdm import tqdm

    patience = 0.2 if sys.stderr.isatty() else 5.0
    pace = {"mininterval": patience, "maxinterval": 2 * patience}
    return tqdm(iterable, total=total, desc=desc, unit=unit, ncols=100, disable=disable or NUMBER in os.environ, **pace)


def arguments(description: str) -> argparse.ArgumentParser:
    """A parser whose help shows the module's docstring as written, and every default."""
    command = f"python -m workflow_scripts.{Path(sys.argv[0]).stem}"
    return argparse.ArgumentParser(prog=command, description=description, formatter_class=Formatter)


def shard(text: str) -> str:
    """The type of `--shard`: "4_0" is the first of four."""
    count, _, rank = text.partition("_")
    if not (count.isdigit() and rank.isdigit() and int(rank) < int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is no shard: 4_0 is the first of four, 4_3 the last")
    return text


class Formatter(argparse.RawDescriptionHelpFormatter):
    def _get_help_string(self, action):
        shown = action.default not in (None, argparse.SUPPRESS, False)
        return (action.help or "") + (" (default: %(default)s)" if shown else "")


def run(main: Callable[[], int | None]) -> None:
    """Call main(); what a person can mend ends in one message, not in a traceback."""
    if "TORCHELASTIC_RUN_ID" in os.environ:  # a rank, which torchrun leaves behind when it is killed itself
        die_with_parent()
    try:
        sys.exit(main() or 0)
    except BadInput as error:
        sys.exit(f"error: {error}")
    except OutOfTime as error:
        say(f"{error}; exit status {STATUS}: the same command goes on from here")
        sys.exit(STATUS)
    except ValidationError as error:
        sys.exit(f"error: {error.title}: {faults_of(error)}")
    except FileNotFoundError as error:
        sys.exit(f"error: there is no file {error.filename}")
