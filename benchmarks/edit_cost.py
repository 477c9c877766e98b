"""Measure the cost of editing 1 % of the training prompts: requests and seconds, as shares of what the run cost before.

    python -m benchmarks.edit_cost [--run runs/arithmetic]
    python -m benchmarks.edit_cost --times 20     # with so many times the prompts, round 1 alone

It works on a copy of a finished run. Three results are of round 1 up to its log-probs, where the policy is the same and
the ledger helps: requests, seconds of all its jobs, and seconds that they worked. Starting Python and loading the model
is most of a job's time in an experiment of the demo's size, and little in a larger one. Beside them stands the cost of
the whole run, since later rounds have a new policy and start anew.
"""

import argparse
import csv
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet as pq
import yaml

from benchmarks.common import publish, row
from workflow_scripts.core.files import read_json
from workflow_scripts.core.running.ledger import batch_in

STAGES = ("generate", "grade", "construct_meta", "construct_data", "logp")
PARTS = ("Snakefile", "rules", "workflow_scripts", "envs", "profiles", "report", "config.yaml", "local")


def copied(run: Path, folder: Path) -> Path:
    """Copy the workflow and the run, with Snakemake's records, into a folder; return the run's new place."""
    for part in (*PARTS, run, ".snakemake/metadata"):
        if Path(part).is_dir() and not Path(part).is_symlink():
            shutil.copytree(part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(part, folder / part, follow_symlinks=False)

    return folder / run


# ---------------------------------------------------------------- what a run cost


def newer(paths: Iterable[Path], since: float) -> Iterator[Path]:
    """Yield the files that were written after a time."""
    for path in paths:
        if path.stat().st_mtime > since:
            yield path


def seconds_of(benchmarks: Iterable[Path]) -> float:
    """Return the seconds in some of Snakemake's benchmark files."""
    total = 0.0
    for path in benchmarks:
        with open(path, newline="") as file:
            total += sum(float(line["s"]) for line in csv.DictReader(file, delimiter="\t"))
    return total


def seconds_of_run(run: Path, since: float = 0.0) -> float:
    """Return the seconds of all jobs of all rounds."""
    return seconds_of(newer((run / "benchmarks").rglob("*.tsv"), since))


def seconds_of_round_1(run: Path, since: float = 0.0) -> float:
    """Return the seconds of the jobs of round 1 up to its log-probs."""
    files = [path for stage in STAGES for path in newer((run / "benchmarks" / stage).rglob("*.tsv"), since)]
    names = {path: str(path.relative_to(run)) for path in files}
    return seconds_of(path for path in files if "r1" in names[path] and "evaluation" not in names[path])


def working_seconds(run: Path, since: float = 0.0) -> float:
    """Return the seconds that round 1's generate, grade and logp jobs worked, without the start of their Python."""
    files = [*run.glob("results/r1/*/*.usage.json"), *run.glob("data/*_r1_*_logp/*.usage.json")]
    return sum(read_json(path)["seconds"] for path in newer(files, since))


def count_answers(run: Path) -> int:
    """Return the number of round 1's answers."""
    manifests = [path for path in run.glob("results/r1/*/*_*.json") if re.fullmatch(r"\d+_\d+", path.stem)]
    return sum(read_json(path)["rows"] for path in manifests)


def count_generated(run: Path, since: float) -> int:
    """Return the number of conversations that entered round 1's ledgers after a time."""
    total = 0
    for path in newer((run / "ledger/generate/r1").rglob("*.jsonl"), since):
        with open(path, "rb") as file:
            total += sum(len(batch_in(line) or []) for line in file)
    return total


# ---------------------------------------------------------------- the edit


def enlarge(folder: Path, times: int) -> None:
    """Ask for so many times the training questions, more of the levels that have enough different ones."""
    path = folder / "config.yaml"
    config = yaml.safe_load(path.read_text())
    count = config["prompts"]["train"]["count"]
    more = sum(count.values()) * (times - 1) // 2
    for level in ("two_digit_sum", "two_digit_product"):
        count[level] += more
    path.write_text(yaml.safe_dump(config))


def edit(run: Path) -> tuple[int, int]:
    """Reword 1 % of the training questions; return the numbers of edited and of all questions."""
    path = run / "prompts/train.parquet"
    table = pq.read_table(path)
    texts = table.column("question").to_pylist()

    step = max(1, len(texts) // max(1, round(len(texts) / 100)))
    edited = range(0, len(texts), step)
    for number in edited:
        texts[number] = f"Please: {texts[number]}"

    position = table.schema.get_field_index("question")
    pq.write_table(table.set_column(position, "question", pyarrow.array(texts)), path)
    return len(edited), len(texts)


def snakemake(folder: Path, *targets: str) -> None:
    """Run the workflow in a folder."""
    command = [sys.executable, "-m", "snakemake", "--profile", "local", "--quiet", "all", "--", *targets]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="runs/arithmetic", help="a finished run of config.yaml, up to date")
    parser.add_argument("--times", type=int, default=1, help="so many times the prompts of the run (default: 1)")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run = copied(Path(args.run), folder)
        rounds = max(int(path.stem[1:]) for path in run.glob("evaluation/r*.json"))
        logps = [str(path.relative_to(folder)) for path in run.glob("data/offline_*_r1_*_logp/*.pkl")]

        began = 0.0
        if args.times > 1:
            enlarge(folder, args.times)
            began = time.time()
            snakemake(folder, *logps)
        before = {
            "requests": count_answers(run),
            "jobs": seconds_of_round_1(run, began),
            "work": working_seconds(run, began),
            "whole run": seconds_of_run(run),
        }

        edited, prompts = edit(run)
        stamp = (run / "prompts/train.parquet").stat().st_mtime
        snakemake(folder, *logps)
        after = {
            "requests": count_generated(run, stamp),
            "jobs": seconds_of_round_1(run, stamp),
            "work": working_seconds(run, stamp),
        }
        if args.times == 1:
            snakemake(folder, f"round{rounds}_checkpoint")
            after["whole run"] = seconds_of_run(run, stamp)

    print(f"{edited} of {prompts} prompts edited")
    size = f"_of_{prompts}_prompts" if args.times > 1 else ""
    rows = []
    for key, cost in after.items():
        name = f"edit_of_1_percent_{key.replace(' ', '_')}{size}"
        unit = "requests" if key == "requests" else "s"
        rows.append(row(name, cost, before[key], unit, "before the edit", "", share=cost / before[key]))
    publish("edit_cost", rows)


if __name__ == "__main__":
    main()
