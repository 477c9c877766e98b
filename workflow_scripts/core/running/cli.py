"""The command line of every stage script: arguments, messages, progress bars and exit statuses."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from workflow_scripts.core.errors import BadInput, validation_message
from workflow_scripts.core.running import hub, storage
from workflow_scripts.core.running.deadline import OUT_OF_TIME_STATUS, OutOfTime
from workflow_scripts.core.running.replicas import die_with_parent, is_first_process
from workflow_scripts.core.running.secrets import hide
from workflow_scripts.core.running.soundness import check_inputs, seal_output
from workflow_scripts.core.running.status import MEND_FIRST_STATUS
from workflow_scripts.core.templates import TEMPLATES, split_template

MOST_SHARDS = 10_000  # each is a job of Snakemake


def say(text: str) -> None:
    """Print a line to the log. If the stage runs in several processes, only the first one prints."""
    if is_first_process():
        print(hide(text), file=sys.stderr, flush=True)


def progress(iterable: Any = None, *, total: int | None, desc: str, unit: str, disable: bool = False):
    """Return a tqdm progress bar that stays readable in a log file."""
    from tqdm import tqdm

    interval = 0.2 if sys.stderr.isatty() else 5.0
    pace: dict[str, Any] = {"mininterval": interval, "maxinterval": 2 * interval}
    is_off = disable or not is_first_process()
    return tqdm(iterable, total=total, desc=desc, unit=unit, ncols=100, disable=is_off, **pace)


# ---------------------------------------------------------------- arguments


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help shows the module's docstring as written, and every default."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    module = spec.name if spec and spec.name.startswith("workflow_scripts") else Path(sys.argv[0]).stem
    command = module if module.startswith("workflow_scripts") else f"workflow_scripts.{module}"
    return StageParser(prog=f"python -m {command}", description=description, formatter_class=HelpFormatter)


class StageParser(argparse.ArgumentParser):
    """Parses a stage's options and checks the files that they name, before the stage reads them."""

    output: str | None = None  # what the stage of this process writes

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        values = super().parse_args(*args, **kwargs)
        if is_first_process():
            check_inputs(vars(values))
        StageParser.output = getattr(values, "output", None)
        return values


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the description's line breaks and adds defaults to the help of options that have one."""

    def _get_help_string(self, action):
        has_default = action.default not in (None, argparse.SUPPRESS, False, [], "{}")
        return (action.help or "") + (" (default: %(default)s)" if has_default else "")


def add_shards_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a stage that writes prompts with their digest files."""
    parser.add_argument("--shards", type=positive, default=1, help="number of digest files per split")
    parser.add_argument(
        "--more-shards",
        type=positive,
        nargs="*",
        default=[],
        help="further numbers, for stages with shards of their own",
    )


def positive(text: str) -> int:
    """Parse a number of shards."""
    if not (text.isdigit() and 0 < int(text) <= MOST_SHARDS):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {MOST_SHARDS}")
    return int(text)


def numbers_of_shards(args: argparse.Namespace) -> list[int]:
    """Return the numbers of shards that digest files are written for, from the largest to the smallest."""
    return sorted({args.shards, *args.more_shards}, reverse=True)


def shard(text: str) -> str:
    """Parse the value of `--shard`: "4_0" is the first of four shards."""
    count, _, rank = text.partition("_")

    if not (count.isdigit() and rank.isdigit() and int(rank) < int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a shard: 4_0 is the first of four, 4_3 the last")

    return text


def add_code_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--code`, which the workflow uses to tell a stage which code its results count as made by."""
    parser.add_argument("--code", help="digest of the code that results count as made by; computed if left out")


def add_task_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options by which a stage receives its task: name, settings and files."""
    parser.add_argument("--task", required=True, help="name of the task: a file or folder of workflow_scripts/tasks/")
    parser.add_argument(
        "--task-settings",
        type=json.loads,
        default="{}",
        help="the config's section of the task as JSON, with the keys that this stage uses",
    )
    parser.add_argument(
        "--task-file", action="append", default=[], metavar="NAME=PATH", help="a file that the task needs here"
    )


def add_template_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--template`, a name with or without variables."""
    known = ", ".join((*TEMPLATES, "chat"))
    parser.add_argument(
        "--template",
        type=template,
        default="deepseek",
        help=f'prompt template: {known}, or \'chat {{"name": "value"}}\'',
    )


def template(text: str) -> str:
    """Parse the value of `--template`."""
    try:
        name, variables = split_template(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: the variables after the name are not JSON ({error})") from None

    if name not in (*TEMPLATES, "chat") or (variables and name != "chat"):
        raise argparse.ArgumentTypeError(f"{text!r}: choose {', '.join(TEMPLATES)}, or chat with or without variables")
    return text


def add_endpoint_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how endpoints are called. No result depends on them."""
    parser.add_argument(
        "--endpoints",
        type=json.loads,
        default="{}",
        help="limits, prices and budgets of the endpoints in these sections, as JSON",
    )
    parser.add_argument("--requests", help="folder for the ledgers of paid requests (default: beside the output)")


def task_files(args: argparse.Namespace) -> dict[str, str]:
    """Return the values of `--task-file` by name. A name that comes twice is an error."""
    files: dict[str, str] = {}

    for item in args.task_file:
        name, equals, path = item.partition("=")
        if not equals or name in files:
            raise BadInput(f"--task-file {item}: should be NAME=PATH, with each name once")
        files[name] = path

    return files


def merged(settings: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    """Return nested settings with the values of `overlay` added or replaced."""
    result = dict(settings)

    for key, value in overlay.items():
        both_nested = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both_nested else value

    return result


# ---------------------------------------------------------------- the end of a stage


def run(main: Callable[[], int | None]) -> None:
    """Call `main` and exit. An error that a person can correct ends in one message, not in a traceback.

    core/running/status.py lists the exit statuses.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun leaves its processes behind when it is killed itself
        die_with_parent()

    main = with_seal(main)
    try:
        sys.exit(main() or 0)
    except BadInput as error:
        message = str(error)
    except OutOfTime as error:
        say(f"{error}; exit status {OUT_OF_TIME_STATUS}: the same command goes on from here")
        sys.exit(OUT_OF_TIME_STATUS)
    except ValidationError as error:
        message = f"{error.title}: {validation_message(error)}"
    except ModuleNotFoundError as error:
        message = f"{_missing_package(error)}. Install it in the environment of {sys.executable}, and run again"
    except FileNotFoundError as error:
        message = hub.explain(error) or f"there is no file {error.filename}"
        if error.filename is None and not hub.explain(error):  # a library's own message, which names more than a file
            raise
    except Exception as error:
        message = hub.explain(error) or storage.explain(error)
        if message is None:
            raise

    print(hide(f"error: {message}"), file=sys.stderr, flush=True)
    sys.exit(MEND_FIRST_STATUS)


def with_seal(main: Callable[[], int | None]) -> Callable[[], int | None]:
    """Return a stage that also seals what it wrote, if it succeeds."""

    def main_and_seal() -> int | None:
        status = main()
        if StageParser.output and not status and is_first_process():
            seal_output(Path(StageParser.output))
        return status

    return main_and_seal


def _missing_package(error: ModuleNotFoundError) -> str:
    """Return what is missing, in words. Libraries that look for an optional package raise a subclass of the error."""
    return f"the Python package {error.name!r} is missing" if error.name else str(error)
