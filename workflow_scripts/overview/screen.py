"""Show the state of a run on a terminal."""

import time
from collections.abc import Iterator
from itertools import groupby

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from workflow_scripts.overview.estimate import rest_of
from workflow_scripts.overview.jobs import Survey
from workflow_scripts.overview.summary import Stage, ready_stages, stages_of
from workflow_scripts.overview.words import duration

STYLES = {
    "failed": "bold red",
    "running": "bold cyan",
    "queued": "cyan",
    "interrupted": "yellow",
    "stale": "yellow",
    "pending": "dim",
    "done": "green",
}
SIGNS = {"failed": "✗", "running": "▶", "queued": "…", "interrupted": "‖", "stale": "↻", "pending": "·", "done": "✓"}
MOST_REASONS = 3


def screen(survey: Survey, is_full: bool = False) -> Group:
    """Return what the terminal shows: a table of rounds and stages, and four sentences below it.

    Unless `is_full`, finished stages of a round share a line, and so do later rounds that all wait.
    """
    now = time.time()
    table = Table(box=box.SIMPLE_HEAD, title=survey.run, title_justify="left", title_style="bold")
    for name in ("round", "stage", "jobs"):
        table.add_column(name, no_wrap=True)
    table.add_column("state", no_wrap=True)
    for name in ("spent", "left"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")

    for row in _rows(stages_of(survey, now), is_full):
        table.add_row(*row)
    return Group(table, *_sentences(survey, now))


# ---------------------------------------------------------------- the table


def _rows(stages: list[Stage], is_full: bool) -> Iterator[tuple]:
    if is_full:
        yield from map(_line_of_stage, stages)
        return

    rounds = [list(members) for _, members in groupby(stages, key=lambda stage: stage.round)]
    kinds = [_kind(members) for members in rounds]

    # The first round that is not done keeps its lines.
    waiting = [number for number, kind in enumerate(kinds) if kind != "done"]
    if waiting:
        kinds[waiting[0]] = ""

    for kind, places in groupby(range(len(rounds)), key=lambda place: kinds[place]):
        members = [stage for place in places for stage in rounds[place]]
        if kind:
            yield _line_of_rounds(members)
        else:
            yield from _lines_of_round(members)


def _kind(stages: list[Stage]) -> str:
    """Return "done", "stale" or "pending" if all stages of a round are, else ""."""
    states = {stage.state for stage in stages}
    return states.pop() if len(states) == 1 and states <= {"done", "stale", "pending"} else ""


def _line_of_rounds(stages: list[Stage]) -> tuple:
    first, last = stages[0].round, stages[-1].round
    state = stages[0].state
    jobs = sum(len(stage.jobs) for stage in stages)
    rests = [stage.left for stage in stages]
    left = None if None in rests else sum(rest or 0 for rest in rests)
    name = str(first) if first == last else f"{first}–{last}"
    spent = sum(stage.seconds for stage in stages)
    why = {"done": "", "pending": "not made yet", "stale": _shortened(_own_reasons(stages))}[state]
    return name, "all stages", str(jobs), _state_text(state), *_times(spent, left, state), Text(why)


def _own_reasons(stages: list[Stage]) -> list[str]:
    """Return why the jobs of stages are pending, and whether they only follow from earlier ones."""
    own = dict.fromkeys(reason for stage in stages for job in stage.jobs for reason in job.reasons)
    return list(own) or ["follows from the round before"]


def _shortened(reasons: list[str]) -> str:
    shown = "; ".join(reasons[:MOST_REASONS])
    more = len(reasons) - MOST_REASONS
    return f"{shown} and {more} more reasons" if more > 0 else shown


def _lines_of_round(stages: list[Stage]) -> Iterator[tuple]:
    """Yield one line for all finished stages of each round, and one for each other stage."""
    for number, members in groupby(stages, key=lambda stage: stage.round):
        of_round = list(members)
        done = [stage for stage in of_round if stage.state == "done"]
        if done:
            jobs = sum(len(stage.jobs) for stage in done)
            spent = sum(stage.seconds for stage in done)
            names = f"{len(done)} stages" if len(done) > 1 else done[0].name
            yield str(number), names, str(jobs), _state_text("done"), *_times(spent, 0, "done"), ""
        yield from (_line_of_stage(stage) for stage in of_round if stage.state != "done")


def _line_of_stage(stage: Stage) -> tuple:
    finished = stage.counts.get("done", 0)
    total = len(stage.jobs)
    jobs = str(total) if finished in (0, total) else f"{finished}/{total}"
    text = _state_text(stage.state)
    notes = [_shortened(stage.reasons)]
    if stage.progress:
        text.append(f" {stage.progress.share:.0%}")
        notes.insert(0, str(stage.progress))

    times = _times(stage.seconds, stage.left, stage.state)
    return str(stage.round), stage.name, jobs, text, *times, Text("; ".join(filter(None, notes)))


def _state_text(state: str) -> Text:
    return Text(f"{SIGNS[state]} {state}", style=STYLES[state])


def _times(seconds: float, left: float | None, state: str) -> tuple[str, str]:
    if state == "done":
        return duration(seconds), ""
    return duration(seconds) if seconds else "", "?" if left is None else duration(left)


# ---------------------------------------------------------------- the sentences


def _sentences(survey: Survey, now: float) -> Iterator[Text]:
    pending = [job for job in survey.jobs if job.pending]
    if not pending:
        yield Text("Everything is made.", style="green")
        return

    if survey.driver and survey.is_driven:
        driver = survey.driver
        age = duration(now - driver.started)
        yield Text(f"A Snakemake process works on it: number {driver.pid} on {driver.host}, for {age}.")
    else:
        yield Text("No Snakemake process works on it; the same snakemake command goes on from here.")

    if ready := ready_stages(survey):
        more = f" and {len(ready) - 3} more" if len(ready) > 3 else ""
        yield Text(f"Next: {', '.join(ready[:3])}{more}.")

    seconds, unknown = rest_of(survey, now)
    where = f"{survey.jobs_at_once} jobs at once" if survey.jobs_at_once else f"{survey.cores} cores"
    if unknown:
        least = f"at least {duration(seconds)}, and in addition" if seconds else "unknown:"
        yield Text(f"Left: {least} {', '.join(unknown)}, of which no job has finished yet.")
    else:
        end = time.strftime("%a %H:%M", time.localtime(now + seconds))
        yield Text(f"Left: about {duration(seconds)} with {where} (until {end}), if the rest goes as before.")
