"""Tell how many updates a config makes on the answers of one policy, before anything is run.

    python -m workflow_scripts.updates --configfile recipes/reference.yaml
    python -m workflow_scripts.updates --configfile recipes/math.yaml --prompts 119274

A round's answers come from one policy, and each update moves the model away from it. Rows are an upper bound: answers
that a round does not train on are not known before they are graded. If a comment of the config says "updates per
policy: … (the original: N)", the command compares with N. It also lists the updates of the rounds that are made.
"""

import argparse
import re
from pathlib import Path
from typing import Any

import yaml

from workflow_scripts.config.layout import Run
from workflow_scripts.config.load import Config, ConfigError, load
from workflow_scripts.config.sections import Split
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json
from workflow_scripts.core.records import READABLE, read_records
from workflow_scripts.core.running.cli import arguments, run
from workflow_scripts.core.running.manifest import manifest_of
from workflow_scripts.core.slices import rounds_per_pass

ORIGINAL = re.compile(r"updates per policy: [^\n]*the original: (?:at most )?([\d,]+)")


def records_in(path: str) -> int | None:
    """Return the number of records of a file; None if it is not here."""
    is_here = Path(path).is_file() and path.endswith(READABLE)
    return sum(1 for _ in read_records(path)) if is_here else None


def train_prompts(cfg: Config) -> int | None:
    """Return the number of train prompts: as frozen, as the config counts them, or as the file has; None if unknown."""
    frozen = manifest_of(Run(cfg).prompts("train"))
    if frozen.exists():
        return read_json(frozen)["rows"]

    if cfg.prompts.pool:
        return cfg.task_section.train_prompts(cfg, prompts_in(cfg.prompts.pool))
    return prompts_in(cfg.prompts.train) if cfg.prompts.train else None


def prompts_in(split: Split) -> int | None:
    """Return the number of prompts of a split, as the config counts them or as its file has; None if unknown."""
    if split.count is not None:
        return sum(split.count.values())

    records = records_in(split.file or "")
    return min(records, split.limit or records) if records is not None else None


def most_units(cfg: Config, prompts: int | None) -> int | None:
    """Return how many rows (or pairs) a round trains on, at most; None if unknown."""
    if cfg.data.source:
        return records_in(cfg.data.source.file)

    sizes = [size for size in (prompts, cfg.prompts_per_round) if size is not None]
    return cfg.task_section.most_units(cfg, min(sizes, default=None))


def original_updates(text: str) -> int | None:
    """Return the original system's updates per policy that a comment of the config states; None if there is none."""
    match = ORIGINAL.search(text)
    return int(match[1].replace(",", "")) if match else None


def describe(cfg: Config, prompts: int | None, units: int | None, original: int | None) -> list[str]:
    """Return the lines of the output."""
    train = cfg.train
    what = "pairs" if train.unit == "pairs" else "rows"
    lines = []

    if not cfg.data.source:
        lines.append(f"prompts per round   {_prompts_text(cfg, prompts)}")
    lines.append(f"{what} per round      {f'at most {units:,}' if units is not None else 'unknown'}")

    passes = "1 pass" if train.epochs == 1 else f"{train.epochs} passes"
    divided = f"{train.batch_size:,} {what} an update"
    if train.updates_per_round:
        divided = f"divided among {train.updates_per_round:,} updates (updates_per_round)"
    lines.append(f"training            {passes} over a round's {what}, {divided}")

    if units is None and not train.updates_per_round:
        option = "--rows" if cfg.data.source else "--prompts"
        lines.append(f"updates per policy  {train.epochs} × {what} / {train.batch_size:,}; give {option} to compute it")
        return lines

    updates = train.updates(units or 0)
    most = "" if train.updates_per_round else "at most "
    ratio = f"; the original: {original:,}, ratio {updates / original:g}" if original else ""
    lines.append(f"updates per policy  {most}{updates:,}{ratio}")
    lines.append(f"rounds              {cfg.rounds:,}, {most}{cfg.rounds * updates:,} updates together")
    return lines


def _prompts_text(cfg: Config, prompts: int | None) -> str:
    size = cfg.prompts_per_round
    known = "an unknown number" if prompts is None else f"{prompts:,}"

    if size is None:
        return f"all: {known}"
    if prompts is None:
        return f"{size:,} of {known}"
    return f"{min(size, prompts):,} of {known}; {rounds_per_pass(prompts, size):,} rounds answer all of them"


def rounds_made(cfg: Config) -> list[dict[str, Any]]:
    """Return the manifests of the checkpoints that exist, in the order of the rounds."""
    checkpoints = Path(Run(cfg).folder).glob("checkpoints/r*/checkpoint.json")
    manifests = [read_json(path) for path in checkpoints]
    return sorted((manifest for manifest in manifests if manifest.get("round")), key=lambda manifest: manifest["round"])


def parse_arguments() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--configfile", type=Path, default=Path("config.yaml"), help="the config or recipe")
    parser.add_argument(
        "--prompts", type=int, help="number of train prompts (default: as frozen, or as the config says)"
    )
    parser.add_argument("--rows", type=int, help="rows or pairs that a round trains on (default: an upper bound)")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    if not args.configfile.is_file():
        raise BadInput(f"--configfile: there is no file {args.configfile}")

    text = args.configfile.read_text()
    try:
        cfg = load(yaml.safe_load(text))
    except ConfigError as error:
        raise BadInput(str(error)) from None

    prompts = args.prompts if args.prompts is not None else train_prompts(cfg)
    units = args.rows if args.rows is not None else most_units(cfg, prompts)
    print(f"{args.configfile}:")
    for line in describe(cfg, prompts, units, original_updates(text)):
        print(f"  {line}")
    for manifest in rounds_made(cfg):
        print(f"  round {manifest['round']} was made with {manifest['updates']:,} updates on {manifest['rows']:,} rows")


if __name__ == "__main__":
    run(main)
