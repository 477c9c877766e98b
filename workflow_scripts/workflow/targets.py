"""The targets on the command line: round<n>_<stage> for any n, report, verify, and files.

`round2_data` asks for what round 2 trains on, and for nothing that comes after it. README.md and docs/rounds.md list
the stages; `snakemake --list-target-rules` lists the names for the first rounds of the config, and its last one.
"""

import difflib
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from snakemake.cli import get_argument_parser
from snakemake.exceptions import WorkflowError

from workflow_scripts.config.layout import Run
from workflow_scripts.config.load import Config
from workflow_scripts.tasks.defaults import Wing

STAGES = ("results", "graded", "meta", "data", "logp", "checkpoint", "evaluation", "publish")  # in the order of a round
TRAINED = ("checkpoint", "evaluation", "publish")  # the stages that need the training of their round
ROUND = re.compile(r"round(0|[1-9]\d*)_(\w+)")
FIRST_ROUNDS = 20  # that have rules of their own in any case; a rule for each of many rounds would take long to read
WHICH_RUN = ("--configfile", "--configfiles", "--config", "-C", "--snakefile", "-s", "--directory", "-d", "--profile")
GENERAL = ("all", "report", "verify", "rehearse")


def targets_on_command_line() -> list[str]:
    """Return the targets that `snakemake` was called with. It reads the Snakefile before it hands them out."""
    return get_argument_parser().parse_known_args(sys.argv[1:])[0].targets if _is_snakemake() else []


def arguments_on_command_line() -> list[str]:
    """Return the targets that `snakemake` was called with, and the options that say which run is made of what."""
    pieces: list[str] = []
    is_kept = False

    for word in sys.argv[1:]:
        if word.startswith("-"):
            is_kept = word.split("=")[0] in WHICH_RUN
        if is_kept:
            pieces.append(word)

    targets = targets_on_command_line()
    return [*targets, *(word for word in pieces if word not in targets)]


def _is_snakemake() -> bool:
    """Return whether this process is `snakemake`, or `python -m snakemake`."""
    return "snakemake" in Path(sys.argv[0]).parts[-2:]


def allow_many_rounds() -> None:
    """Let Snakemake follow chains of about 1,500 rounds. It does so by recursion, with 13 calls for each round."""
    sys.setrecursionlimit(max(sys.getrecursionlimit(), 20_000))


def named_stages(targets: Iterable[str]) -> list[tuple[int, str]]:
    """Return (round, stage) of each target of the form round<n>_<stage>, whether there is such a stage or not."""
    return [(int(match[1]), match[2]) for match in map(ROUND.fullmatch, targets) if match]


def executor_on_command_line() -> str:
    """Return the executor that `snakemake` was called with, by its options and profiles.

    While the Snakefile is read, Snakemake has none yet, and in a dry run it hides the real one.
    """
    if not _is_snakemake():
        return "local"

    options = get_argument_parser().parse_known_args(sys.argv[1:])[0]
    if options.profile:
        options = get_argument_parser(options.profile).parse_known_args(sys.argv[1:])[0]
    return options.executor or "local"


class Targets:
    """The targets that have names."""

    def __init__(self, cfg: Config, run: Run, wing: Wing, on_command_line: list[str]):
        self.cfg = cfg
        self.run = run
        self.wing = wing
        self.on_command_line = on_command_line

    # ------------------------------------------------------------ names and files

    def products(self, n: int) -> list[str]:
        """Return what a finished round n has: its checkpoint, the metrics up to it, and the task's products."""
        return [self.run.checkpoint(n), *self.run.evaluations(n), *self.wing.products(n)]

    def of_round(self, n: int) -> dict[str, list[str]]:
        """Return the files of each stage that round n has, in the order of the round."""
        trained = {"checkpoint": self.products(n)}
        if self.cfg.evaluates:
            trained["evaluation"] = [self.run.evaluation(n)]
        trained["publish"] = [self.run.published(n)]
        if n == 0:
            data = {"data": [self.run.cold_start_data]} if self.cfg.cold_start else {}
            return data | self.wing.targets(n) | trained

        entry = "rows" if self.cfg.data.source else self.run.entry(n)
        stages = {}
        if entry not in ("meta", "rows"):
            stages["results"] = self.run.all_answers(n)
            stages["graded"] = [path for version in self.run.versions(n) for path in self.run.graded(n, version)]
        if entry != "rows":
            stages["meta"] = list(self.run.metas(n).values())

        stages |= {"data": [self.run.data(n)], "logp": self.run.stored_logps(n)}
        return stages | self.wing.targets(n) | trained

    def rounds(self) -> list[int]:
        """Return the first rounds of the config, its last one, and those that targets on the command line name."""
        named = {n for n, _ in named_stages(self.on_command_line)}
        return sorted({*range(min(self.cfg.rounds, FIRST_ROUNDS) + 1), self.cfg.rounds, *named})

    def by_name(self) -> dict[str, list[str]]:
        """Return the files of each target round<n>_<stage>, for the rounds of `rounds`."""
        files = {}
        for n in self.rounds():
            files |= {f"round{n}_{stage}": paths for stage, paths in self.of_round(n).items()}
        return files

    def end_with_report(self) -> bool:
        """Return whether the table of rounds is of interest once these targets are made."""
        stages = {stage for _, stage in named_stages(self.on_command_line)}
        return bool(stages & set(TRAINED)) or set(self.on_command_line) <= {"all", "report"}

    # ------------------------------------------------------------ checks

    def check(self) -> None:
        """Raise WorkflowError for a mistyped target, with what would be right, and for rounds after a schedule."""
        for n, stage in named_stages(self.on_command_line):
            if stage in self._stages() and stage not in self.of_round(n):
                raise WorkflowError(f"round {n} has no {stage}: {self._why_not(n, stage)}")
            self._check_schedule(n, stage)
            self._check_questions(n)

        if "report" in self.on_command_line and not self.cfg.evaluates:
            raise WorkflowError("report: the config has no eval questions (prompts.eval), so there are no metrics")

        for target in self.on_command_line:
            known = [*GENERAL, *self._names_near(target)]
            near = difflib.get_close_matches(target, known, n=1, cutoff=0.6)
            if target not in known and (near or ROUND.fullmatch(target)):
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise WorkflowError(
                    f"there is no target {target!r}; {hint}Targets are round<n>_<stage> for any n, with the stages "
                    f"{', '.join(self._stages())}; report, verify, rehearse, all; and the files below {self.run.folder}"
                )

    def _names_near(self, target: str) -> list[str]:
        """Return the names that a mistyped target may have meant. Rules are targets too; their names have no digit."""
        number = re.search(r"\d+", target)
        if not (number or "round" in target):
            return []

        rounds = {self.cfg.rounds, int(number[0]) if number else 1, *self.rounds()}
        return [f"round{n}_{stage}" for n in sorted(rounds) for stage in self.of_round(n)]

    def _stages(self) -> list[str]:
        """Return all stages of rounds, with those of the task."""
        return list(dict.fromkeys([*STAGES, *self.wing.targets(0), *self.wing.targets(1)]))

    def _why_not(self, n: int, stage: str) -> str:
        """Return why round n lacks a stage, and which it has."""
        stages = f"it has {', '.join(self.of_round(n))}"
        if stage == "evaluation":
            return f"the config has no eval questions (config key prompts.eval); {stages}"
        if n == 0:
            return stages if self.cfg.cold_start else f"there is no cold_start in the config; {stages}"

        key = "data.source" if self.cfg.data.source else f"{self.run.entry(n)}.{n}"
        return f"it starts from existing files (config key {key}); {stages}"

    def _check_questions(self, last: int) -> None:
        """Raise WorkflowError if a round up to this one has no questions to answer and no existing files."""
        prompts = self.cfg.prompts
        if prompts.train or prompts.pool or self.cfg.data.source:
            return

        for n in range(1, last + 1):
            if not self.run.entry(n):
                raise WorkflowError(
                    f"config: round {n} has no questions: give prompts.train, or name the files that the round starts "
                    "from in results, meta or rows"
                )

    def _check_schedule(self, n: int, stage: str) -> None:
        last_trained = n if stage in TRAINED else n - 1
        if self.cfg.train.schedule_over == "rounds" and last_trained > self.cfg.rounds:
            raise WorkflowError(
                f"config: train.schedule_over: the schedule ends with round {self.cfg.rounds} (`rounds`), so there is "
                f"no round {last_trained}; raise rounds, which trains all of them again, or use schedule_over: round"
            )
