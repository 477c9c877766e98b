"""What an edit of 1 % of the training prompts costs: requests and seconds, as shares of what the run cost before.

    python -m benchmarks.edit_cost [--run runs/arithmetic]
    python -m benchmarks.edit_cost --times 20     # of so many times the prompts, round 1 alone

Works on a copy of a finished run. Three figures for round 1 up to its log-probs, where the policy is the same and the
ledger helps: requests, seconds of all its jobs, and seconds that they worked. Starting Python and loading the model is
most of a job's time in an experiment of the demo's size, and little in a larger one. Beside them the honest cost of
the whole run, since later rounds have a new policy and start anew.
"""

import argparse
import csv
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow
import pyarrow.parquet as pq
import yaml

from benchmarks.common import publish, row
from workflow_scripts.core.records import read_json

STAGES = ("generate", "grade", "construct_meta", "construct_data", "logp")
PARTS = ("Snakefile", "rules", "workflow_scripts", "envs", "profiles", "report", "config.yaml", "local")


def copied(run: Path, folder: Path) -> Path:
    """The workflow and the run in a folder of their own, with Snakemake's records; the run's new place."""
    for part in (*PARTS, run, ".snakemake/metadata"):
        if Path(part).is_dir() and not Path(part).is_symlink():
            shutil.copytree(part, folder / part)
        else:
            shutil.copy2(part, folder / part, follow_symlinks=False)
    return folder / run


def seconds(run: Path, stages=("",), since: float = 0.0) -> float:
    """Of all jobs of the stages in round 1 (or, by default, of all stages and rounds), from the benchmark files."""
    places = [run / "benchmarks" / stage for stage in stages]
    files = [path for place in places for path in place.rglob("*.tsv") if path.stat().st_mtime > since]
    files = [
        path
        for path in files
        if stages == ("",) or ("r1" in str(path.relative_to(run)) and "evaluation" not in str(path))
    ]
    return sum(float(row["s"]) for path in files for row in csv.DictReader(open(path), delimiter="\t"))


def working(run: Path, since: float = 0.0) -> float:
    """Seconds that round 1's generate, grade and logp jobs worked, without the start of their Python."""
    files = [*run.glob("results/r1/*/*.usage.json"), *run.glob("data/*_r1_*_logp/*.usage.json")]
    return sum(read_json(path)["seconds"] for path in files if path.stat().st_mtime > since)


def answers(run: Path) -> int:
    manifests = [path for path in run.glob("results/r1/*/*_*.json") if re.fullmatch(r"\d+_\d+", path.stem)]
    return sum(read_json(path)["rows"] for path in manifests)


def generated(run: Path, since: float) -> int:
    """Conversations that entered round 1's ledgers."""
    files = [path for path in (run / "ledger/generate/r1").rglob("*.jsonl") if path.stat().st_mtime > since]
    return sum(len(json.loads(line)) for path in files for line in open(path))


def enlarge(folder: Path, times: int) -> None:
    """So many times the training questions, more of the levels that have enough different ones."""
    path = folder / "config.yaml"
    config = yaml.safe_load(path.read_text())
    count = config["prompts"]["train"]["count"]
    each = sum(count.values()) * (times - 1) // 2
    config["prompts"]["train"]["count"] = count | {
        level: count[level] + each for level in ("two_digit_sum", "two_digit_product")
    }
    path.write_text(yaml.safe_dump(config))


def edit(run: Path) -> tuple[int, int]:
    """Reword 1 % of the training questions; (edited, all)."""
    path = run / "prompts/train.parquet"
    table = pq.read_table(path)
    texts = table.column("question").to_pylist()
    step = max(1, len(texts) // max(1, round(len(texts) / 100)))
    for place in range(0, len(texts), step):
        texts[place] = f"Please: {texts[place]}"
    place = table.schema.get_field_index("question")
    pq.write_table(table.set_column(place, "question", pyarrow.array(texts)), path)
    return len(range(0, len(texts), step)), len(texts)


def snakemake(folder: Path, *targets: str) -> None:
    command = [sys.executable, "-m", "snakemake", "--profile", "local", "--quiet", "all", "--", *targets]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="runs/arithmetic", help="a finished run of config.yaml, up to date")
    parser.add_argument("--times", type=int, default=1, help="as many prompts as the run has (default: 1)")
    args = parser.parse_args()
    rounds = max(int(path.stem[1:]) for path in Path(args.run).glob("evaluation/r*.json"))
    with tempfile.TemporaryDirectory() as folder:
        run = copied(Path(args.run), Path(folder))
        logps = [str(path.relative_to(folder)) for path in run.glob("data/offline_*_r1_*_logp/*.pkl")]
        began = 0.0
        if args.times > 1:
            enlarge(Path(folder), args.times)
            began = time.time()
            snakemake(Path(folder), *logps)
        before = {
            "requests": answers(run),
            "jobs": seconds(run, STAGES, began),
            "work": working(run, began),
            "whole run": seconds(run),
        }
        edited, prompts = edit(run)
        stamp = (run / "prompts/train.parquet").stat().st_mtime
        snakemake(Path(folder), *logps)
        after = {"requests": generated(run, stamp), "jobs": seconds(run, STAGES, stamp), "work": working(run, stamp)}
        if args.times == 1:
            snakemake(Path(folder), f"round{rounds}_checkpoint")
            after["whole run"] = seconds(run, since=stamp)
    size = f"_of_{prompts}_prompts" if args.times > 1 else ""
    print(f"{edited} of {prompts} prompts edited")
    units = {key: "requests" if key == "requests" else "s" for key in after}
    found = [
        row(
            f"edit_of_1_percent_{key.replace(' ', '_')}{size}",
            after[key],
            before[key],
            units[key],
            "before the edit",
            "",
        )
        for key in after
    ]
    publish("edit_cost", [one | {"share": one["ours"] / one["peer"]} for one in found])


if __name__ == "__main__":
    main()
