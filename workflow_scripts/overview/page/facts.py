"""Read the facts of a run for its page: metrics, training, cost, and how many records each step passed on."""

import csv
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json

Row = dict[str, Any]

# Columns of a training's history that the page shows: key → what it is.
TRAINED = {
    "reward": "mean reward of the rows",
    "loss": "loss",
    "kl_behaviour": "KL to the policy that answered",
    "kl_reference": "KL to the reference",
    "clipped": "share of clipped tokens",
    "entropy": "entropy (nats per token)",
    "exact_entropy": "exact entropy (nats per token)",
    "ess": "effective sample size",
    "ess_fresh": "effective sample size of the round's own rows",
    "ess_replayed": "effective sample size of replayed rows",
    "grad_norm": "gradient norm",
}
UNCOUNTED = ("seconds", "processes", "cost_of_run")  # of usage files; the last one has the costs of other jobs in it


def rounds_in(folder: Path, pattern: str) -> dict[int, Path]:
    """Return the files or folders that match a pattern such as "evaluation/r*.json" by their round, in order."""
    numbered = {}
    for path in folder.glob(pattern):
        match = re.search(r"(?:^|[/_])r(\d+)(?:$|[/_.])", str(path.relative_to(folder)))
        if match:
            numbered[int(match[1])] = path
    return dict(sorted(numbered.items()))


# ---------------------------------------------------------------- metrics


def metrics_of(folder: Path, names: list[str]) -> list[Row]:
    """Return one row per round, metric and level: value, number of questions and, if it is known, the interval."""
    rows = []

    for number, path in rounds_in(folder, "evaluation/r*.json").items():
        evaluation = read_json(path)
        parts = {"all": evaluation} | evaluation.get("by_set", {}) | evaluation.get("by_level", {})
        for level, values in parts.items():
            for name in names:
                if isinstance(values.get(name), int | float):
                    interval = values.get("intervals", {}).get(name, {})
                    row = {"round": number, "metric": name, "level": level, "value": values[name], "n": values.get("n")}
                    rows.append(row | {side: interval[side] for side in ("low", "high") if side in interval})

    return rows


def changes_of(folder: Path, first: str) -> dict[int, Row]:
    """Return how the first metric of each round changed since the round before, with the p-value, where it is known."""
    changes = {}
    for number, path in rounds_in(folder, "evaluation/r*.json").items():
        comparison = read_json(path).get("against", {}).get("before", {}).get(first)
        if comparison:
            changes[number] = comparison
    return changes


# ---------------------------------------------------------------- training


def training_of(folder: Path) -> list[Row]:
    """Return the logged metrics of all trainings, with round and update; `place` counts updates over all rounds."""
    rows = []
    first = 0

    for number, path in rounds_in(folder, "checkpoints/r*/history.json").items():
        if number == 0:  # the cold start has its own scale
            continue
        history = read_json(path)
        for entry in history:
            rows.append(entry | {"round": number, "update": entry["step"], "place": first + entry["step"]})
        first += max((entry["step"] for entry in history), default=0)

    return rows


# ---------------------------------------------------------------- the way of the records


def flow_of(folder: Path) -> list[Row]:
    """Return for each round how many records each step passed on, and what it left out.

    By construction, each number is the one before it minus what was left out; `faults` names the steps where the
    manifests disagree with that.
    """
    flows = []
    numbers = {*rounds_in(folder, "results/r*"), *rounds_in(folder, "data/offline_*.json")} - {0}
    for number in sorted(numbers):
        flows.append({"round": number, "steps": list(_steps(folder, number))})
    return flows


def _steps(folder: Path, number: int) -> Iterator[Row]:
    answers = _manifests(folder, f"results/r{number}/*/*.json")
    sampled = [manifest for manifest in answers if "policy" in manifest or "prompts" in manifest]
    if sampled:
        prompts = sum(manifest.get("prompts", 0) for manifest in sampled if manifest["_path"].parent.name == "auto")
        refused = _added(manifest.get("rejects") for manifest in sampled)
        yield _step("questions", prompts, "asked in this round")
        yield _step("answers", sum(manifest["rows"] for manifest in sampled), "sampled from the checkpoint", refused)

    graded = [manifest for manifest in answers if manifest["_path"].stem.endswith("_matchlog")]
    if graded:
        yield _step("graded answers", sum(manifest["rows"] for manifest in graded), "with a reward")

    metas = _manifests(folder, f"meta/r{number}_*.json")
    in_meta = sum(manifest["rows"] for manifest in metas)
    if metas:
        before = sum(manifest["rows"] for manifest in graded) if graded else in_meta
        left = {"left out when answers were ordered by question": before - in_meta} if before > in_meta else {}
        yield _step("answers by question", in_meta, "ordered by question", left)

    data = _manifests(folder, f"data/offline_*_r{number}_*.json")
    if data:
        replayed = sum(sum(manifest["replayed"]["rows"].values()) for manifest in data if "replayed" in manifest)
        rows = sum(manifest["rows"] for manifest in data) - replayed
        told = _added(manifest.get("dropped") for manifest in data)
        yield _step("training rows", rows, "selected", _left_out(in_meta - rows, told) if metas else told)

        if replayed:
            yield _step("rows with those of earlier rounds", rows + replayed, f"{replayed} are replayed")

    trained = folder / f"checkpoints/r{number}/checkpoint.json"
    if trained.exists():
        manifest = read_json(trained)
        text = f"in {manifest['updates']} updates"
        yield _step("rows trained on", manifest["rows"], text, manifest.get("rejects") or {})


def _left_out(count: int, told: dict[str, int]) -> dict[str, int]:
    """Return what the data stage left out by its reasons, with the rest that no reason names, so that it adds up.

    Some reasons count questions, so that their answers are more than the reason says; those are in the rest.
    """
    rest = count - sum(told.values())
    return told | ({"other answers that the selection does not use": rest} if rest > 0 else {})


def _step(name: str, count: int, text: str, left_out: dict[str, int] | None = None) -> Row:
    return {"name": name, "count": count, "text": text, "left_out": left_out or {}}


def _manifests(folder: Path, pattern: str) -> list[Row]:
    """Return the manifests that match a pattern, without usage files."""
    paths = sorted(path for path in folder.glob(pattern) if "." not in path.stem)
    return [read_json(path) | {"_path": path} for path in paths]


def _added(counts: Any) -> dict[str, int]:
    """Return several {reason: count} added up, largest first."""
    total: dict[str, int] = defaultdict(int)
    for part in filter(None, counts):
        for reason, count in part.items():
            total[reason] += count
    return dict(sorted(total.items(), key=lambda item: -item[1]))


# ---------------------------------------------------------------- cost


def cost_of(folder: Path) -> list[Row]:
    """Return the seconds of each stage in each round, by Snakemake's benchmark files; round 0 has the preparations."""
    seconds: dict[tuple[int, str], float] = defaultdict(float)

    for path in folder.glob("benchmarks/**/*.tsv"):
        name = str(path.relative_to(folder / "benchmarks"))
        match = re.search(r"(?:^|/|_)r(\d+)(?:$|/|_|\.)", name)
        stage = name.split("/")[0].removesuffix(".tsv")
        with open(path, newline="") as file:
            taken = sum(float(row["s"]) for row in csv.DictReader(file, delimiter="\t"))
        seconds[int(match[1]) if match else 0, stage] += taken

    return [{"round": number, "stage": stage, "seconds": taken} for (number, stage), taken in sorted(seconds.items())]


def usage_of(folder: Path, last: int | None = None) -> dict[str, float]:
    """Return what usage files add up to: sampled tokens, and requests and money where endpoints were called.

    With `last`, only rounds up to this one count.
    """
    total: dict[str, float] = defaultdict(float)
    words = {"tokens": "scored tokens"}  # usage files of the stage logp

    for path in folder.rglob("*.usage.json"):
        match = re.search(r"(?:/|_)r(\d+)(?:/|_|\.)", str(path.relative_to(folder)))
        if last is not None and match and int(match[1]) > last:
            continue
        for name, value in read_json(path).items():
            if name not in UNCOUNTED and isinstance(value, int | float):
                total[words.get(name) or str(name).replace("_", " ")] += value
    return dict(total)


# ---------------------------------------------------------------- config and versions


def settings_of_run(folder: Path) -> Row:
    """Return the config that the workflow noted in the run's folder; {} for runs made before it did that."""
    path = folder / "config.json"
    return read_json(path) if path.exists() else {}


def versions_of(folder: Path) -> dict[str, str]:
    """Return the versions that manifests name: of torch, transformers, engines."""
    versions: dict[str, str] = {}

    for path in rounds_in(folder, "checkpoints/r*/checkpoint.json").values():
        versions |= read_json(path).get("versions", {})
    for path in sorted(folder.glob("evaluation/r*/**/*.json")):
        engine = read_json(path).get("engine") if "." not in path.stem else None
        if isinstance(engine, dict):
            versions |= {name: str(value) for name, value in engine.items() if name != "versions"}

    return versions


def checkpoints_of(folder: Path) -> list[Row]:
    """Return digest, start and rows of each checkpoint."""
    rows = []
    for number, path in rounds_in(folder, "checkpoints/r*/checkpoint.json").items():
        manifest = read_json(path)
        row = {"round": number, "digest": manifest["digest"], "start": manifest.get("start", "")}
        rows.append(row | {"rows": manifest.get("rows"), "updates": manifest.get("updates")})
    return rows


def stages_of_run(folder: Path) -> Row | None:
    """Return the graph of stages that the workflow noted; None for runs made before it did that."""
    path = folder / "stages.json"
    try:
        return read_json(path) if path.exists() else None
    except BadInput:
        return None
