"""Measure the cost of staleness: the arithmetic rounds with 1, 4, 16 and 64 updates per round, on equal samples.

    snakemake --profile local round0_checkpoint
    python -m benchmarks.staleness                 # about 20 minutes: four runs of three rounds

Each run starts from the default experiment's cold start and answers the same prompts with as many samples per round.
Only the number of updates that a round's samples are divided among differs. With 1, every update is on policy. With 64,
the last one learns from answers of a policy that is 63 updates old. It writes benchmarks/out/staleness.{json,svg}.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common import OUT
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json, write_json
from workflow_scripts.core.running.plots import figure

UPDATES = (1, 4, 16, 64)
LOGGED = ("ess", "kl_behaviour", "clipped")


def run(updates: int, rounds: int, start: Path) -> list[dict[str, Any]]:
    """Run the rounds and return the evaluation and the last logged metrics of each."""
    name = f"staleness-{updates}"
    config = yaml.safe_load(Path("config.yaml").read_text())
    config |= {"name": name, "rounds": rounds, "model": {"path": str(start)}}
    config["train"] |= {"updates_per_round": updates, "epochs": 1, "schedule": "constant"}
    del config["cold_start"]

    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(config, file)
        file.flush()
        command = [sys.executable, "-m", "snakemake", "--profile", "local", f"round{rounds}_checkpoint"]
        subprocess.run([*command, "--configfile", file.name], check=True)

    results = []
    for n in range(rounds + 1):
        metrics = read_json(f"runs/{name}/evaluation/r{n}.json")
        logged = read_json(f"runs/{name}/checkpoints/r{n}/history.json")[-1] if n else {}
        result = {"round": n, "accuracy": metrics["accuracy"], "code_share": metrics["code_share"]}
        results.append(result | {key: logged[key] for key in LOGGED if key in logged})

    return results


def plot(runs: dict[str, list[dict[str, Any]]]) -> None:
    """Draw accuracy and effective sample size by round."""
    with figure(OUT / "staleness.svg", 2, width=4.5) as [left, right]:
        for updates, results in runs.items():
            rounds = [result["round"] for result in results]
            left.plot(rounds, [100 * result["accuracy"] for result in results], "o-", label=updates)
            right.plot(rounds[1:], [100 * result["ess"] for result in results[1:]], "o-", label=updates)

        left.set(xlabel="round", ylabel="accuracy, %", title="reward on held-out questions")
        right.set(xlabel="round", ylabel="effective sample size, %", title="at a round's last updates")
        left.legend(title="updates per round")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds of each run (default: 3)")
    args = parser.parse_args()

    start = Path("runs/arithmetic/checkpoints/r0/model")
    if not start.is_dir():
        raise BadInput(f"{start}: there is no model; run `snakemake --profile local round0_checkpoint` first")

    runs = {str(updates): run(updates, args.rounds, start) for updates in UPDATES}
    write_json(OUT / "staleness.json", runs)
    plot(runs)
    for updates, results in runs.items():
        shown = "  ".join(f"r{result['round']} {result['accuracy']:.1%}" for result in results)
        print(f"{updates:>2} updates per round: {shown}  (ESS {results[-1]['ess']:.1%})")


if __name__ == "__main__":
    main()
