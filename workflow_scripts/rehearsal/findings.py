"""Findings of a rehearsal: what was found, how grave it is, and what to do."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Grade = Literal["fail", "waste", "know"]

HEADINGS: dict[Grade, str] = {
    "fail": "Would fail, or give wrong results",
    "waste": "Would waste",
    "know": "To know",
}


@dataclass
class Finding:
    """One finding."""

    grade: Grade
    place: str  # the config key, stage or file that it concerns
    text: str  # what was found
    advice: str = ""  # what to do


def by_share(share: float, failing: float = 0.5, wasteful: float = 0.02) -> Grade:
    """Return the grade of a fault that a share of the records has."""
    if share >= failing:
        return "fail"
    return "waste" if share >= wasteful else "know"


def percent(count: int, total: int) -> str:
    """Return a count with its share, such as "3 of 100 (3.0%)"."""
    return f"{count} of {total} ({count / max(1, total):.1%})"


def as_json(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    return [asdict(finding) for finding in findings]


def as_markdown(name: str, findings: Sequence[Finding]) -> str:
    """Return the report as text, the gravest findings first."""
    lines = [f"# Rehearsal of {name}"]

    for grade, heading in HEADINGS.items():
        chosen = [finding for finding in findings if finding.grade == grade]
        lines += ["", f"## {heading}: {len(chosen) or 'nothing'}"]
        for finding in chosen:
            advice = f" {finding.advice}" if finding.advice else ""
            lines.append(f"- **{finding.place}**: {finding.text}{advice}")

    return "\n".join(lines) + "\n"
