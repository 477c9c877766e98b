"""Measure a dry run of three rounds beside one of a bare Snakemake workflow with as many jobs and files.

    python -m benchmarks.dry_run [--shards 64]

The bare workflow has the same rules as a chain of files, with neither params nor resources nor a config. Both are
timed in turn, and the result is the ratio of the medians. torch and other large packages cannot be imported meanwhile,
as on a login node that lacks them.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from benchmarks.common import interleaved, publish, row

PARTS = ("Snakefile", "rules", "workflow_scripts", "envs", "profiles", "report", "slurm")
HEAVY = ("torch", "transformers", "vllm", "deepspeed", "datasets", "sklearn")
BARE = """
SHARDS = range({shards})
rule all:
    input: "r{rounds}/checkpoint", expand("r{{n}}/evaluation", n=range({rounds} + 1))
rule start:
    output: "r0/checkpoint"
    shell: "touch {{output}}"
rule prompts:
    output: expand("{{split}}/{{k}}", split=["train", "eval"], k=SHARDS)
    shell: "touch {{output}}"
for name, split, here in [("auto", "train", 1), ("trigger", "train", 1), ("eval", "eval", 0)]:
    rule:
        name: f"generate_{{name}}"
        input: f"{{split}}/{{{{k}}}}", lambda w, here=here: f"r{{int(w.n) - here}}/checkpoint"
        output: f"r{{{{n}}}}/{{name}}/{{{{k}}}}", f"r{{{{n}}}}/{{name}}/{{{{k}}}}.json"
        log: f"logs/r{{{{n}}}}/{{name}}/{{{{k}}}}.log"
        benchmark: f"benchmarks/r{{{{n}}}}/{{name}}/{{{{k}}}}.tsv"
        shell: "touch {{output}}"
    rule:
        name: f"grade_{{name}}"
        input: f"r{{{{n}}}}/{{name}}/{{{{k}}}}", f"r{{{{n}}}}/{{name}}/{{{{k}}}}.json"
        output: f"r{{{{n}}}}/{{name}}/{{{{k}}}}_graded", f"r{{{{n}}}}/{{name}}/{{{{k}}}}_graded.json"
        log: f"logs/r{{{{n}}}}/{{name}}/{{{{k}}}}_graded.log"
        benchmark: f"benchmarks/r{{{{n}}}}/{{name}}/{{{{k}}}}_graded.tsv"
        shell: "touch {{output}}"
rule evaluate:
    input: expand("r{{{{n}}}}/eval/{{k}}_graded{{s}}", k=SHARDS, s=["", ".json"])
    output: "r{{n}}/evaluation"
    shell: "touch {{output}}"
rule meta:
    input: expand("r{{{{n}}}}/{{{{name}}}}/{{k}}_graded{{s}}", k=SHARDS, s=["", ".json"])
    output: "r{{n}}/{{name}}_meta"
    shell: "touch {{output}}"
rule data:
    input: "r{{n}}/auto_meta", "r{{n}}/trigger_meta"
    output: "r{{n}}/data"
    shell: "touch {{output}}"
rule logp:
    input: "r{{n}}/data", lambda w: f"r{{int(w.n) - 1}}/checkpoint"
    output: "r{{n}}/logp/{{k}}", "r{{n}}/logp/{{k}}.json"
    log: "logs/r{{n}}/logp/{{k}}.log"
    benchmark: "benchmarks/r{{n}}/logp/{{k}}.tsv"
    shell: "touch {{output}}"
rule train:
    input:
        "r{{n}}/data",
        expand("r{{{{n}}}}/logp/{{k}}{{s}}", k=SHARDS, s=["", ".json"]),
        lambda w: f"r{{int(w.n) - 1}}/checkpoint",
    output: "r{{n,[1-9]+}}/checkpoint"
    shell: "touch {{output}}"
"""


def ours(folder: Path, shards: int, rounds: int) -> list[str]:
    """Put the workflow with so many shards into a folder, where heavy packages cannot be imported.

    Return the arguments of its dry run.
    """
    for part in PARTS:
        if Path(part).is_dir():
            shutil.copytree(part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(part, folder / part)

    config = yaml.safe_load(Path("config.yaml").read_text()) | {"shards": shards}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))

    hidden = "\n".join(f"sys.modules[{name!r}] = None" for name in HEAVY)
    (folder / "sitecustomize.py").write_text(f"import sys\n{hidden}\n")
    return ["--profile", "slurm", "-n", f"round{rounds}_checkpoint"]


def bare(folder: Path, shards: int, rounds: int) -> list[str]:
    """Put the bare workflow into a folder; return the arguments of its dry run."""
    (folder / "Snakefile").write_text(BARE.format(shards=shards, rounds=rounds))
    return ["--cores", "1", "-n", "all"]


def timed(folder: Path, options: list[str]) -> tuple[float, int]:
    """Return seconds and jobs of one dry run."""
    command = [sys.executable, "-m", "snakemake", *options]
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(folder)}, capture_output=True, text=True)
    seconds = time.perf_counter() - began

    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return seconds, int(re.findall(r"^total +(\d+)", done.stdout + done.stderr, re.M)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=64, help="number of shards (default: 64)")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds (default: 3)")
    parser.add_argument("--times", type=int, default=5, help="turns of each side (default: 5)")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        runs = {}
        for make in (ours, bare):
            place = Path(folder) / make.__name__
            place.mkdir()
            runs[make] = (place, make(place, args.shards, args.rounds))

        jobs = {make.__name__: timed(*run)[1] for make, run in runs.items()}  # and warms the disk's cache
        print(f"jobs: {jobs}")
        mine, peer = interleaved(lambda: timed(*runs[ours])[0], lambda: timed(*runs[bare])[0], args.times)

    note = f"bare, {args.rounds} rounds × {args.shards} shards"
    publish("dry_run", [row("dry_run", mine, peer, "s", note, "at most 1.5×")])


if __name__ == "__main__":
    main()
