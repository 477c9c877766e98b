"""Results of the parts: a JSON line for each result, written at once, and a Markdown summary of all lines."""

import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LINES = "results.jsonl"
SUMMARY = "summary.md"
HEADER = "run"  # the part under which the run's own lines stand

Line = dict[str, Any]


class Results:
    """Collects the results of one part. All results of a run are in one folder."""

    def __init__(self, folder: Path, part: str, started: float):
        """`started` is the Unix time at which the run began, for the elapsed time in progress lines."""
        self.folder = folder
        self.part = part
        self.started = started

    def add(self, kind: str, name: str, **fields: Any) -> None:
        """Append a line to the file, bring the summary up to date, and print progress."""
        elapsed = time.time() - self.started
        line = {"part": self.part, "kind": kind, "name": name, "elapsed": round(elapsed, 1)} | fields

        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / LINES, "a") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

        write_summary(self.folder)
        print(f"[{elapsed:6.1f} s] {self.part}: {_text(line)}", flush=True)

    def check(self, name: str, value: float, bound: float, reason: str) -> None:
        """Record a value that must not exceed its bound. A value that is not a number fails."""
        self.add("check", name, value=value, bound=bound, ok=bool(value <= bound), reason=reason)

    def measurement(self, name: str, value: float, unit: str, **fields: Any) -> None:
        """Record a figure that nothing is required of."""
        self.add("measurement", name, value=value, unit=unit, **fields)

    def aim(self, name: str, value: float, least: float, unit: str) -> None:
        """Record a figure with the value that we aim at. Missing an aim is no failure."""
        self.add("aim", name, value=value, least=least, unit=unit, ok=bool(value >= least))

    def note(self, name: str, text: str) -> None:
        """Record a fact that is no figure, such as a measurement that was left out."""
        self.add("note", name, text=text)

    def end(self, status: str, seconds: float, **fields: Any) -> None:
        """Record how the part ended."""
        self.add("end", "end", status=status, seconds=round(seconds, 1), **fields)


def _text(line: Line) -> str:
    match line["kind"]:
        case "check":
            verdict = "ok  " if line["ok"] else "FAIL"
            return f"{verdict} {line['name']}: {_number(line['value'])} (at most {_number(line['bound'])})"
        case "measurement":
            return f"     {line['name']}: {_number(line['value'])} {line['unit']}"
        case "aim":
            verdict = "reached" if line["ok"] else "missed"
            return f"     {line['name']}: {_number(line['value'])} {line['unit']} (aim {line['least']}, {verdict})"
        case "note":
            return f"     {line['name']}: {line['text']}"
        case "end":
            return f"{line['status']} after {line['seconds']} s" + "".join(f"\n{t}" for t in [line.get("error")] if t)
        case _:
            return line["name"]


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e4 and math.isfinite(value) else f"{value:.4g}"
    return str(value)


# ---------------------------------------------------------------- reading and summing up


def read_lines(folder: Path) -> list[Line]:
    """Return all results of a run. A last line that was cut off in the middle is left out."""
    path = folder / LINES
    if not path.exists():
        return []

    lines = []
    for text in path.read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


def forget(folder: Path, parts: Sequence[str]) -> None:
    """Remove the results of some parts, which are measured anew."""
    kept = [line for line in read_lines(folder) if line["part"] not in parts]
    if (folder / LINES).exists():
        (folder / LINES).write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept))


def status_of(lines: Sequence[Line]) -> str:
    """Return how a part stands: ok, failed, left out, cut off, or running."""
    ends = [line for line in lines if line["kind"] == "end"]
    if not ends:
        return "running"
    if ends[-1]["status"] != "ok":
        return ends[-1]["status"]
    return "ok" if all(line["ok"] for line in lines if line["kind"] == "check") else "failed"


def by_part(lines: Sequence[Line]) -> dict[str, list[Line]]:
    """Return the lines of each part, in the order in which parts began, without the run's own."""
    parts: dict[str, list[Line]] = {}
    for line in lines:
        if line["part"] != HEADER:
            parts.setdefault(line["part"], []).append(line)
    return parts


def write_summary(folder: Path) -> None:
    """Write the Markdown summary of all results so far."""
    lines = read_lines(folder)
    parts = by_part(lines)
    headers = [line for line in lines if line["part"] == HEADER]
    text = ["# What a GPU says", ""]

    if headers:
        facts = headers[-1]["facts"]
        text += [f"- {name}: {value}" for name, value in facts.items()] + [""]

    rows = []
    for part, of_part in parts.items():
        checks = [line for line in of_part if line["kind"] == "check"]
        good = sum(line["ok"] for line in checks)
        seconds = next((line["seconds"] for line in reversed(of_part) if line["kind"] == "end"), "")
        rows.append([part, status_of(of_part), f"{good} of {len(checks)}", seconds])
    text += table(["part", "status", "checks passed", "seconds"], rows)

    for part, of_part in parts.items():
        text += ["", f"## {part}", ""] + _section(of_part)

    temporary = folder / f".{SUMMARY}.{os.getpid()}"
    temporary.write_text("\n".join(text) + "\n")
    os.replace(temporary, folder / SUMMARY)


def _section(lines: Sequence[Line]) -> list[str]:
    text: list[str] = []
    checks = [line for line in lines if line["kind"] == "check"]
    figures = [line for line in lines if line["kind"] in ("measurement", "aim")]

    if checks:
        ordered = sorted(checks, key=lambda line: line["ok"])  # failures come first
        rows = [
            [line["name"], _number(line["value"]), _number(line["bound"]), "ok" if line["ok"] else "**FAIL**",
             line["reason"]]
            for line in ordered
        ]  # fmt: skip
        text += table(["check", "value", "at most", "", "why this bound"], rows) + [""]

    if figures:
        rows = []
        for line in figures:
            aim = f"{line['least']} ({'reached' if line['ok'] else 'missed'})" if line["kind"] == "aim" else ""
            rows.append([line["name"], _number(line["value"]), line["unit"], aim, _more(line)])
        text += table(["figure", "value", "unit", "aim", "more"], rows) + [""]

    text += [f"- {line['name']}: {line['text']}" for line in lines if line["kind"] == "note"]
    for line in lines:
        if line["kind"] == "end" and line.get("error"):
            text += ["", "```", line["error"].rstrip(), "```"]

    return text


def _more(line: Line) -> str:
    known = {"part", "kind", "name", "elapsed", "value", "unit", "least", "ok"}
    return ", ".join(f"{name} {_number(value)}" for name, value in line.items() if name not in known)


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        cells = [str(cell).replace("|", "\\|").replace("\n", " ") for cell in row]
        lines.append("| " + " | ".join(cells) + " |")
    return lines
