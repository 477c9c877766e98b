"""Compare what `plan` says with what a run does, over random edits of a finished run: records and seconds.

    python -m benchmarks.plan [--run runs/arithmetic] [--edits 30]

Each edit is made in a copy of the run: reworded questions, other references, deleted questions, more or fewer samples,
or a shorter limit of tokens. The copy is then brought up to the graded answers of round 1. Records are those that
entered the ledgers, by stage. A plan is right if each exact number is met and no "at most" is exceeded.
Seconds are those of the jobs together, beside the median that the plan gives.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from benchmarks.common import OUT
from benchmarks.edit_cost import copied, newer, seconds_of, snakemake
from workflow_scripts.core.files import write_json

TARGET = "round1_graded"
STAGES = ("generate", "grade")
CLOSE = 0.25  # of the seconds
Edit = Callable[[pd.DataFrame, dict[str, Any], random.Random], str]


# ---------------------------------------------------------------- edits


def reword(prompts: pd.DataFrame, config: dict[str, Any], chance: random.Random) -> str:
    chosen = chance.sample(list(prompts.index), chance.randint(1, 12))
    prompts.loc[chosen, "question"] = "Please: " + prompts.loc[chosen, "question"]
    return f"{len(chosen)} questions reworded"


def correct(prompts: pd.DataFrame, config: dict[str, Any], chance: random.Random) -> str:
    chosen = chance.sample(list(prompts.index), chance.randint(1, 12))
    prompts.loc[chosen, "reference"] = "12345"
    return f"{len(chosen)} references changed"


def delete(prompts: pd.DataFrame, config: dict[str, Any], chance: random.Random) -> str:
    chosen = chance.sample(list(prompts.index), chance.randint(1, 12))
    prompts.drop(index=chosen, inplace=True)
    return f"{len(chosen)} questions deleted"


def sample(prompts: pd.DataFrame, config: dict[str, Any], chance: random.Random) -> str:
    config["generate"]["auto"]["samples"] = chance.choice((4, 6, 10, 12))
    return f"generate.auto.samples: {config['generate']['auto']['samples']}"


def shorten(prompts: pd.DataFrame, config: dict[str, Any], chance: random.Random) -> str:
    config["generate"]["trigger"]["max_tokens"] = chance.choice((48, 56))
    return f"generate.trigger.max_tokens: {config['generate']['trigger']['max_tokens']}"


EDITS: tuple[Edit, ...] = (reword, correct, delete, sample, shorten)


# ---------------------------------------------------------------- one edit


def entries(run: Path) -> dict[str, int]:
    """Return how many records the ledgers hold, by stage."""
    held = {}
    for stage in STAGES:
        files = (run / "ledger" / stage).rglob("*.jsonl")
        held[stage] = sum(len(json.loads(line)) for path in files for line in path.read_text().splitlines())
    return held


def is_right(lines: list[dict[str, Any]], computed: dict[str, int]) -> bool:
    """Return whether the plan's numbers of records are those that were computed."""
    for stage in STAGES:
        own = [line for line in lines if line["stage"].split()[0] == stage]
        planned = sum(line["records"] for line in own)
        is_exact = all(line["is_exact"] for line in own)
        if computed[stage] > planned or (is_exact and computed[stage] != planned):
            return False
    return True


def measured(source: Path, seed: int) -> dict[str, Any]:
    """Make one or two random edits in a copy of a run; return what was planned, and what happened."""
    chance = random.Random(seed)

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run = copied(source, folder)
        config = yaml.safe_load((folder / "config.yaml").read_text())
        path = run / "prompts/train.parquet"
        prompts = pd.read_parquet(path)

        edits = [edit(prompts, config, chance) for edit in chance.sample(EDITS, chance.randint(1, 2))]
        (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        if not prompts.equals(pd.read_parquet(path)):
            prompts.to_parquet(path)

        command = [sys.executable, "-m", "workflow_scripts.plan", TARGET, "--json"]
        answer = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
        lines = json.loads(answer.stdout)["lines"]

        before = entries(run)
        began = time.time()
        snakemake(folder, TARGET)
        computed = {stage: held - before[stage] for stage, held in entries(run).items()}
        return {
            "edits": "; ".join(edits),
            "planned": {line["stage"]: [line["records"], line["is_exact"]] for line in lines},
            "computed": computed,
            "right": is_right(lines, computed),
            "planned_seconds": sum(line["seconds"][1] for line in lines),
            "seconds": seconds_of(newer((run / "benchmarks").rglob("*.tsv"), began)),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="runs/arithmetic", help="a finished run of config.yaml, up to date")
    parser.add_argument("--edits", type=int, default=30, help="how many copies are edited (default: 30)")
    args = parser.parse_args()

    results = []
    for seed in range(args.edits):
        results.append(measured(Path(args.run), seed))
        print(json.dumps(results[-1]), flush=True)

    close = [abs(one["planned_seconds"] - one["seconds"]) <= CLOSE * one["seconds"] for one in results]
    summary = {
        "edits": len(results),
        "exact_records": sum(one["right"] for one in results),
        "seconds_within_25_percent": sum(close),
    }
    print(summary)
    write_json(OUT / "plan.json", {"summary": summary, "results": results})


if __name__ == "__main__":
    main()
