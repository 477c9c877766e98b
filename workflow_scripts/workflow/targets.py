"""The targets on the command line: round<n>_checkpoint for any n, report, verify, and files."""

import difflib
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from snakemake.cli import get_argument_parser
from snakemake.exceptions import WorkflowError

from workflow_scripts.config.layout import Run
from workflow_scripts.config.load import Config

ROUND = re.compile(r"round(0|[1-9]\d*)_checkpoint")


def targets_on_command_line() -> list[str]:
    """Return the targets that `snakemake` was called with. It reads the Snakefile before it hands them out."""
    is_snakemake = "snakemake" in Path(sys.argv[0]).parts[-2:]  # bin/snakemake, or python -m snakemake
    return get_argument_parser().parse_known_args(sys.argv[1:])[0].targets if is_snakemake else []


def named_rounds(targets: Iterable[str]) -> set[int]:
    """Return the rounds that targets of the form round<n>_checkpoint name."""
    return {int(match[1]) for match in map(ROUND.fullmatch, targets) if match}


def check_targets(cfg: Config, run: Run, targets: list[str]) -> None:
    """Raise WorkflowError for a mistyped target, with what would be right, and for rounds beyond a schedule's end."""
    rounds = named_rounds(targets)

    beyond = [n for n in sorted(rounds) if n > cfg.rounds]
    if cfg.train.schedule_over == "rounds" and beyond:
        raise WorkflowError(
            f"config: train.schedule_over: the schedule ends with round {cfg.rounds} (`rounds`), so there is no round "
            f"{beyond[0]}; raise rounds, which trains all of them again, or use schedule_over: round"
        )

    for target in targets:
        number = re.search(r"\d+", target)
        likely = {cfg.rounds, int(number[0]) if number else cfg.rounds} | rounds
        known = ["all", "report", "verify", *(f"round{n}_checkpoint" for n in sorted(likely))]
        near = difflib.get_close_matches(target, known, n=1, cutoff=0.6)
        if near and target not in known:
            raise WorkflowError(
                f"there is no target {target!r}; did you mean {near[0]!r}? Targets are round<n>_checkpoint for any n, "
                f"report, verify, all, and the files below {run.folder}"
            )
