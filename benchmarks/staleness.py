"""What staleness costs: the arithmetic rounds with 1, 4, 16 and 64 updates per round, on equal samples.

    snakemake --profile local round0_checkpoint
    python -m benchmarks.staleness                 # about 20 minutes: four runs of three rounds

Each run starts from the default experiment's cold start and answers the same prompts with as many samples per round;
only the number of updates that a round's samples are shared out among differs. With 1, every update is on policy; with
64, the last one learns from answers of a policy that is 63 updates old. Writes benchmarks/out/staleness.{json,svg}.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from benchmarks.common import OUT
from workflow_scripts.core.plots import plotted
from workflow_scripts.core.records import BadInput, read_json, write_json

UPDATES = (1, 4, 16, 64)


def run(updates: int, rounds: int, start: Path) -> list[dict]:
    """Evaluation and last logged figures of each round."""
    config = yaml.safe_load(Path("config.yaml").read_text())
    name = f"staleness-{updates}"
    config |= {"name": name, "rounds": rounds, "model": {"path": str(start)}}
    config["train"] |= {"updates_per_round": updates, "epochs": 1, "schedule": "constant"}
    del config["cold_start"]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(config, file)
        file.flush()
        command = [sys.executable, "-m", "snakemake", "--profile", "local", f"round{rounds}_checkpoint"]
        subprocess.run([*command, "--configfile", file.name], check=True)
    found = []
    for n in range(rounds + 1):
        figures = read_json(f"runs/{name}/evaluation/r{n}.json")
        logged = read_json(f"runs/{name}/checkpoints/r{n}/history.json")[-1] if n else {}
        kept = {key: logged[key] for key in ("ess", "kl_behaviour", "clipped") if key in logged}
        found.append({"round": n, "accuracy": figures["accuracy"], "code_share": figures["code_share"]} | kept)
    return found


def plot(runs: dict[str, list[dict]]) -> None:
    with plotted(OUT / "staleness.svg", 2, width=4.5) as [left, right]:
        for updates, rounds in runs.items():
            left.plot([one["round"] for one in rounds], [100 * one["accuracy"] for one in rounds], "o-", label=updates)
            later = rounds[1:]
            right.plot([one["round"] for one in later], [100 * one["ess"] for one in later], "o-", label=updates)
        left.set(xlabel="round", ylabel="accuracy, %", title="reward on held-out questions")
        right.set(xlabel="round", ylabel="effective sample size, %", title="at a round's last updates")
        left.legend(title="updates per round")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    start = Path("runs/arithmetic/checkpoints/r0/model")
    if not start.is_dir():
        raise BadInput(f"{start}: not there; run `snakemake --profile local round0_checkpoint` first")
    runs = {str(updates): run(updates, args.rounds, start) for updates in UPDATES}
    write_json(OUT / "staleness.json", runs)
    plot(runs)
    for updates, rounds in runs.items():
        shown = "  ".join(f"r{one['round']} {one['accuracy']:.1%}" for one in rounds)
        print(f"{updates:>2} updates per round: {shown}  (ESS {rounds[-1]['ess']:.1%})")


if __name__ == "__main__":
    main()
