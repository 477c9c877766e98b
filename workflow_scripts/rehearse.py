"""Report what the real run of a recipe would meet, from its data and from a rehearsal of it.

    python -m workflow_scripts.rehearse --recipe runs/math-rehearsal/rehearsal/recipe.json --run runs/math-rehearsal

`snakemake rehearse` makes the rehearsal and calls this. The report lies in RUN/report/rehearsal.md and .json. The exit
status is 1 if something would fail.
"""

import argparse
import time
from pathlib import Path

from workflow_scripts.core.files import read_json, write_json, write_text
from workflow_scripts.core.running.cli import arguments, run
from workflow_scripts.rehearsal.checks import artefacts, chat, cost, data, machine, windows
from workflow_scripts.rehearsal.findings import Finding, as_json, as_markdown
from workflow_scripts.rehearsal.rehearsed import Rehearsed

CHECKS = (machine, data, chat, windows, artefacts, cost)


def parse_arguments() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--recipe", required=True, help="the configs of recipe and rehearsal (.json)")
    parser.add_argument("--run", required=True, help="folder of the rehearsal's run")
    parser.add_argument("--since", type=float, default=0.0, help="when the rehearsal began, to tell which logs are its")
    return parser.parse_args()


def find(rehearsed: Rehearsed, since: float) -> list[Finding]:
    """Return the findings of all checks."""
    findings: list[Finding] = []
    rehearsed.since = since

    for module in CHECKS:
        findings += module.check(rehearsed)

    return findings


def main() -> int:
    args = parse_arguments()
    started = time.time()
    rehearsed = Rehearsed(read_json(args.recipe))
    findings = find(rehearsed, args.since)

    report = as_markdown(rehearsed.recipe.name, findings)
    folder = Path(args.run) / "report"
    write_text(folder / "rehearsal.md", report)
    write_json(folder / "rehearsal.json", {"name": rehearsed.recipe.name, "findings": as_json(findings)})
    print(report + f"\n{folder / 'rehearsal.md'}, checked in {time.time() - started:.0f} s")

    return int(any(finding.grade == "fail" for finding in findings))


if __name__ == "__main__":
    run(main)
