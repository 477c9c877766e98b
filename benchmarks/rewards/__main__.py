"""Measure what the rewards and figures of a run are worth, and write benchmarks/out/rewards.json.

    python -m benchmarks.rewards                # all parts, as `make bench-rewards` does
    python -m benchmarks.rewards duplicates     # one part

Each file beside this one is a part. Its function `measure` returns results: a name and a unit, and either a `value`,
with its 95 % `interval` if it has one, or `ours` and `peer` with their `ratio`.
"""

import argparse
import importlib
import pkgutil
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.common import OUT
from workflow_scripts.core.files import read_json, write_json

PARTS = sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]) if module.name[0] != "_")


def shown(result: dict[str, Any]) -> list[str]:
    """Return the cells of a result in the table."""
    value = result["value"] if "value" in result else result["ours"]
    interval = result.get("interval")
    peer = f"{result['peer']:.4g} ({result['peer_name']} {result['peer_version']})" if "peer" in result else ""
    return [
        result["name"],
        f"{value:.5g}",
        f"{interval[0]:.4g} to {interval[1]:.4g}" if interval else "",
        result["unit"],
        peer,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=PARTS, help=f"parts to measure (default: {' '.join(PARTS)})")
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"there is no part {sorted(unknown)[0]}; parts are {', '.join(PARTS)}")

    path = OUT / "rewards.json"
    results = {result["name"]: result for result in (read_json(path) if path.exists() else [])}
    table = Table("name", "value", "95 % interval", "unit", "peer", title=str(path))

    for part in args.parts:
        measured = importlib.import_module(f"benchmarks.rewards.{part}").measure()
        results |= {result["name"]: result for result in measured}
        for result in measured:
            table.add_row(*shown(result))
        write_json(path, list(results.values()))

    Console(width=160).print(table)


if __name__ == "__main__":
    main()
