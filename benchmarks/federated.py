"""Do task models that clients train on rows of their own gain from being merged?

    python -m benchmarks.federated                 # about 20 minutes of one core: 3 seeds of each setting

The task model of recipes/tabular-tiny.yaml before the rounds: it learns from the real rows of breast cancer, which are
shared out among four clients. Nothing else runs, not even the generator's cold start. The metric is Matthews'
correlation on the test rows of all clients, of each client's model and of the merged one (FedAvg).

    one          one client has all rows
    alpha_0.1    labels are shared out by Dirichlet(0.1): most clients have one label
    alpha_10     the same by Dirichlet(10): clients have nearly the same labels
    one_round    alpha_0.1 with one communication round in place of four

Finished runs are kept, so that the command goes on where it was cut off. It writes benchmarks/out/federated.json.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common import OUT
from benchmarks.tables import CORES, RECIPE, interval
from workflow_scripts.core.files import read_json, write_json

FOUR = {"clients": 4, "fed_rounds": 4, "task_rows": 3000}
SETTINGS: dict[str, dict[str, Any]] = {
    "one": {"task_rows": 12000},  # as many updates on as many rows as four communication rounds
    "alpha_0.1": FOUR | {"alpha": 0.1},
    "alpha_10": FOUR | {"alpha": 10},
    "one_round": FOUR | {"alpha": 0.1, "fed_rounds": 1},
}


def metrics_of(setting: str, seed: int) -> dict[str, Any]:
    """Return the metrics of the task models of a setting; make them, if they are not there."""
    config = yaml.safe_load(RECIPE.read_text())
    config |= {"name": f"federated-{setting}-{seed}", "seed": seed}
    config["tabular"] |= SETTINGS[setting]
    file = OUT / "configs" / f"{config['name']}.yaml"
    result = Path(f"runs/{config['name']}/evaluation/task_r0_all.json")

    if not result.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(config, sort_keys=False))
        command = [sys.executable, "-m", "snakemake", str(result), "--profile", "local", "--cores", str(CORES)]
        subprocess.run([*command, "--quiet", "all", "--configfile", str(file)], check=True)

    return read_json(result)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS), help="settings (default: all)"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="seeds (default: 0 1 2)")
    args = parser.parse_args()

    results: dict[str, dict[str, list[float]]] = {}
    for setting in args.settings:
        values: dict[str, list[float]] = {"merged": [], "mean client": [], "merged - mean client": []}
        for seed in args.seeds:
            metrics = metrics_of(setting, seed)
            merged = metrics["models"]["merged"]["test"]["mcc"]
            clients = [model["test"]["mcc"] for name, model in metrics["models"].items() if name != "merged"]
            values["merged"].append(merged)
            if clients:
                mean = sum(clients) / len(clients)
                values["mean client"].append(mean)
                values["merged - mean client"].append(merged - mean)
                print(f"{setting} seed {seed}: merged {merged:.3f}, clients {[round(value, 3) for value in clients]}")
        results[setting] = values

    for setting, values in results.items():
        print(
            f"{setting:10} "
            + "  ".join(f"{name} {interval(of_seeds)}" for name, of_seeds in values.items() if of_seeds)
        )
    write_json(OUT / "federated.json", results)


if __name__ == "__main__":
    main()
