"""Estimate what the pending jobs of a run cost: seconds with an interval, tokens, money, disk. See `plan.py`."""

import math
import random
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, stdev
from typing import Any

from workflow_scripts.core.checkpoint import ENGINE
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json
from workflow_scripts.overview.counts import Count, Counter
from workflow_scripts.overview.estimate import schedule
from workflow_scripts.overview.jobs import Job, Survey

IN_LEDGER = re.compile(r"(\d+) of \d+ records are in the ledger")
DRAWS = 200  # of the seconds of all stages, for the interval
DRAWS_OF_MANY = 20  # for runs of more jobs than MANY
MANY = 2000
SPREAD_OF_MACHINE = 0.1  # standard deviation of the logarithm of seconds, for all stages together
LEAST_SPREAD = 0.1  # of a stage's seconds about what its records let expect
SPREAD_OF_ONE = 0.35  # if only one job of the stage was ever finished
LOW, HIGH = 0.1, 0.9  # an 80 % interval


@dataclass
class Rates:
    """What the finished jobs of a stage took."""

    jobs: int
    start: float  # seconds of a job without any record
    per_record: float  # seconds
    spread: float  # standard deviation of the logarithm of the seconds about these
    tokens: float = 0.0  # sampled per record
    money: float = 0.0  # per record
    bytes: float = 0.0  # per record, or per job if the stage counts none
    counts: bool = True  # whether the stage counts records

    def seconds(self, records: int | None) -> float:
        return self.start + self.per_record * (records or 0)


@dataclass
class Line:
    """The pending jobs of a stage, over all rounds."""

    stage: str
    rounds: list[int]
    jobs: int
    records: int | None
    unit: str
    is_exact: bool
    is_most: bool  # whether there may be fewer records, but not more
    seconds: tuple[float, float, float] | None  # low, middle, high, added up over jobs; None if unknown
    tokens: float
    money: float
    bytes: float
    reasons: list[str] = field(default_factory=list)


@dataclass
class Plan:
    """What a command would do."""

    lines: list[Line]
    seconds: tuple[float, float, float] | None  # until the last job ends, without unknown stages: low, middle, high
    unknown: list[str]  # the stages of which no job was ever finished
    untouched: dict[int, int]  # the finished jobs of each round that stay as they are


# ---------------------------------------------------------------- what finished jobs took


def history(survey: Survey) -> dict[str, Rates]:
    """Return the rates of each stage of which a job was finished."""
    members: dict[str, list[Job]] = defaultdict(list)
    for job in survey.jobs:
        if job.exists and job.seconds:
            members[job.stage].append(job)
    return {stage: _rates([_facts(job) for job in jobs]) for stage, jobs in members.items()}


def _facts(job: Job) -> dict[str, Any]:
    """Return what a finished job did: seconds, those of its own work, computed records, tokens, money, bytes."""
    output = Path(job.outputs[0])
    usage = _read(output.with_suffix(".usage.json"))
    manifest = _read(output.with_suffix(".json"))

    records = manifest.get("rows", 0) + sum(dict(manifest.get("rejects") or {}).values())
    if output.name == "checkpoint.json":
        records = manifest.get("rows", 0) * manifest.get("settings", {}).get("epochs", 1)
    in_ledger = IN_LEDGER.search(_text(job.log))
    rows = records
    records -= int(in_ledger[1]) if in_ledger else 0

    return {
        "seconds": job.seconds,
        "work": min(usage.get("seconds", 0.0), job.seconds),
        "counts": "seconds" in usage,
        "records": records,
        "rows": rows,
        "tokens": usage.get("sampled_tokens", 0),
        "money": usage.get("cost", 0.0),
        "bytes": _bytes_of(output),
    }


def _rates(facts: list[dict[str, Any]]) -> Rates:
    counted = [fact for fact in facts if fact["counts"] and fact["records"] > 0]
    if not counted:
        seconds = [fact["seconds"] for fact in facts]
        size = median(fact["bytes"] for fact in facts)
        return Rates(len(facts), median(seconds), 0.0, _spread(seconds, median(seconds)), bytes=size, counts=False)

    start = median(fact["seconds"] - fact["work"] for fact in counted)
    per_record = sum(fact["work"] for fact in counted) / sum(fact["records"] for fact in counted)
    expected = [start + per_record * fact["records"] for fact in counted]
    ratios = [fact["seconds"] / seconds for fact, seconds in zip(counted, expected)]
    rows = sum(fact["rows"] for fact in counted)
    return Rates(
        len(counted),
        start,
        per_record,
        _spread(ratios, 1.0),
        tokens=sum(fact["tokens"] for fact in counted) / rows,
        money=sum(fact["money"] for fact in counted) / rows,
        bytes=sum(fact["bytes"] for fact in counted) / rows,
    )


def _spread(values: Sequence[float], middle: float) -> float:
    if len(values) < 2:
        return SPREAD_OF_ONE
    return max(LEAST_SPREAD, stdev(math.log(max(value, 1e-3) / max(middle, 1e-3)) for value in values))


def _bytes_of(output: Path) -> int:
    """Return the size of an output, with the weights beside it if it is a checkpoint."""
    folders = ("model", ENGINE) if output.name == "checkpoint.json" else ()
    files = [output, *(path for folder in folders for path in output.with_name(folder).glob("*"))]
    return sum(path.stat().st_size for path in files if path.is_file())


def _read(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except (OSError, BadInput):
        return {}
    return value if isinstance(value, dict) else {}


def _text(log: str | None) -> str:
    try:
        return Path(log).read_text(errors="replace") if log else ""
    except OSError:
        return ""


# ---------------------------------------------------------------- what is pending


def plan_of(survey: Survey) -> Plan:
    """Return what the pending jobs of a run compute and cost."""
    counts = Counter(survey).counts
    rates = history(survey)
    pending: dict[str, list[int]] = defaultdict(list)
    for number, job in enumerate(survey.jobs):
        if job.pending:
            pending[job.stage].append(number)

    for stage, numbers in pending.items():
        if not survey.jobs[numbers[0]].measured:  # such jobs take a few seconds
            rates[stage] = Rates(0, 0.0, 0.0, 0.0, counts=False)
    unknown = [stage for stage in pending if stage not in rates]
    draws = _draws(survey, counts, rates)
    lines = []
    for stage, numbers in pending.items():
        jobs = [survey.jobs[number] for number in numbers]
        of_stage = [counts[number] for number in numbers]
        lines.append(_line(stage, numbers, jobs, of_stage, rates.get(stage), draws))
    ends = sorted(schedule(survey, seconds) for seconds in draws)

    untouched: dict[int, int] = defaultdict(int)
    for job in survey.jobs:
        if not job.pending:
            untouched[job.round] += 1
    seconds = _interval(ends) if any(ends) else None
    return Plan(lines, seconds, unknown, dict(sorted(untouched.items())))


def _draws(survey: Survey, counts: dict[int, Count], rates: dict[str, Rates]) -> list[list[float]]:
    """Return the seconds of all jobs, drawn several times: each time, every stage is slower or faster as a whole."""
    expected = []
    for number, job in enumerate(survey.jobs):
        known = rates.get(job.stage)
        expected.append(known.seconds(counts[number].records) if job.pending and known else 0.0)

    stages = sorted({job.stage for job in survey.jobs})
    draws = []
    for draw in range(DRAWS if len(survey.jobs) <= MANY else DRAWS_OF_MANY):
        chance = random.Random(draw)
        machine = math.exp(chance.gauss(0, SPREAD_OF_MACHINE))
        factors = {}
        for stage in stages:
            spread = rates[stage].spread if stage in rates else 0.0
            factors[stage] = machine * math.exp(chance.gauss(0, spread))
        draws.append([seconds * factors[job.stage] for seconds, job in zip(expected, survey.jobs)])
    return draws


def _line(
    stage: str,
    numbers: list[int],
    jobs: list[Job],
    of_stage: list[Count],
    rates: Rates | None,
    draws: list[list[float]],
) -> Line:
    """Return the line of a stage: of the jobs with these numbers, and their counts."""
    known = [count.records for count in of_stage if count.records is not None]
    records = sum(known) if len(known) == len(of_stage) else None

    reasons = dict.fromkeys(reason for job in jobs for reason in job.reasons)
    per_record = records or 0 if rates and rates.counts else len(jobs)
    return Line(
        stage,
        sorted({job.round for job in jobs}),
        len(jobs),
        records,
        of_stage[0].unit,
        all(count.is_exact for count in of_stage),
        any(count.is_most for count in of_stage) and all(count.is_exact or count.is_most for count in of_stage),
        _interval(sorted(sum(seconds[number] for number in numbers) for seconds in draws)) if rates else None,
        tokens=(records or 0) * rates.tokens if rates else 0.0,
        money=(records or 0) * rates.money if rates else 0.0,
        bytes=per_record * rates.bytes if rates else 0.0,
        reasons=list(reasons) or ["follows from earlier stages"],
    )


def _interval(values: list[float]) -> tuple[float, float, float]:
    """Return the ends of the 80 % interval and the median of sorted values."""
    return tuple(values[min(int(share * len(values)), len(values) - 1)] for share in (LOW, 0.5, HIGH))  # type: ignore
