"""A cold start and a round of the default experiment, stage by stage without Snakemake, on the device and on a CPU.

Both runs go side by side in processes of their own. The parameters of the stages are those that the rules pass on
(workflow/params.py). Prompts are frozen into JSON lines, because Parquet files need pyarrow.
"""

import importlib
import json
import math
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks.gpu.right_stages import stage
from benchmarks.gpu.setting import Bench
from workflow_scripts import tasks
from workflow_scripts.config.layout import VERSIONS, Run
from workflow_scripts.config.load import Config, load
from workflow_scripts.config.sections import settings_of
from workflow_scripts.core.files import read_json, write_jsonl
from workflow_scripts.core.sandbox import missing_isolation
from workflow_scripts.freeze_prompts import keys_of, read_set
from workflow_scripts.workflow.params import ParamsOfRules

REPOSITORY = Path(__file__).parents[2]
DEVIATIONS = 4.0  # standard deviations of a difference between two accuracies
SPREAD = 0.05  # what accuracies of two trainings differ by that drew other samples: rounding decides which


def measure(bench: Bench) -> None:
    """Run both sides and compare their accuracies."""
    sides = [bench.device, "cpu"]
    folders = [bench.scratch / f"{number}-{side}" for number, side in enumerate(sides)]
    processes = [start(side, bench.shape, folder) for side, folder in zip(sides, folders)]

    for side, process in zip(sides, processes):
        output, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(f"the round on {side} ended with status {process.returncode}:\n{output[-4000:]}")

    for n in (0, 1):
        ours, theirs = (read_json(next(folder.glob(f"runs/*/evaluation/r{n}.json"))) for folder in folders)
        compare(bench, n, sides, ours, theirs)

    if bench.device == "cpu":
        paths = [next(folder.glob("runs/*/checkpoints/r1/checkpoint.json")) for folder in folders]
        digests = [read_json(path)["digest"] for path in paths]
        bench.results.check(
            "round 1: policies differ", float(digests[0] != digests[1]), 0, "two equal runs on a CPU agree in all bits"
        )


def start(side: str, shape: str, folder: Path) -> subprocess.Popen:
    """Start a side in a process of its own."""
    folder.mkdir()
    environment = dict(os.environ) | {"PYTHONPATH": str(REPOSITORY), "WANDB_MODE": "disabled"}
    if side == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""

    command = [sys.executable, "-m", "benchmarks.gpu.round", shape]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def compare(bench: Bench, n: int, sides: list[str], ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Check that two accuracies agree within their interval."""
    accuracies = [ours["accuracy"], theirs["accuracy"]]
    count = ours["n"]
    for side, accuracy in zip(sides, accuracies):
        bench.results.measurement(f"round {n}: accuracy on {side}", accuracy, "of the questions", questions=count)

    mean = sum(accuracies) / 2
    deviation = math.sqrt(2 * max(mean * (1 - mean), 1 / count) / count)
    bench.results.check(
        f"round {n}: difference of accuracies",
        abs(accuracies[0] - accuracies[1]),
        DEVIATIONS * deviation + SPREAD,
        f"{DEVIATIONS:g} standard deviations of two samples of {count} questions, and {SPREAD} between trainings",
    )


# ---------------------------------------------------------------- one side


def config_of(shape: str) -> Config:
    """Return the default experiment's config; for the shape tiny, with a model and numbers that take seconds."""
    values = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    values |= {"shards": 1, "rounds": 1, "sandbox": "off" if missing_isolation() else "on"}

    if shape == "tiny":
        levels = values["prompts"]["train"]["count"]
        values["prompts"] = {split: {"count": dict.fromkeys(levels, 4)} for split in ("train", "eval")}
        values["model"]["scratch"] |= {"layers": 1, "width": 32, "heads": 2, "mlp_width": 64}
        values["cold_start"]["count"] = {level: {"direct": 60, "code": 60} for level in levels}
        values["generate"]["auto"] |= {"samples": 4, "max_tokens": 24}
        values["generate"]["trigger"] |= {"samples": 2, "max_tokens": 24}
        values["generate"]["eval"] |= {"max_tokens": 24}
        values["data"]["advantage"] = "raw"
        values["math"] = {"switches": ["keeptrigger", "all"]}

    for section in (values["train"], values["cold_start"]["train"]):
        section |= {"save_steps": 10_000}
    return load(values)


class Stages:
    """Calls the stages of a round with the parameters of their rules."""

    def __init__(self, cfg: Config):
        self.cfg = cfg
        self.run = Run(cfg)
        self.params = ParamsOfRules(cfg, self.run, tasks.part_class(cfg.task, "Wing")(cfg, self.run))

    def call(self, module: str, params: Mapping[str, Any], wildcards: Mapping[str, Any], *options: Any) -> None:
        """Call a stage in this process. Parameters that depend on wildcards are computed first."""
        names = Wildcards({name: str(value) for name, value in wildcards.items()})
        pieces = [piece(names) if callable(piece) else piece for piece in params.values()]
        print(f"--- {module}", flush=True)
        imported = importlib.import_module(f"workflow_scripts.{module}")
        stage(imported, *shlex.split(" ".join(pieces)), *options)


class Wildcards(dict):
    """Wildcards by name and as items, as Snakemake passes them."""

    def __getattr__(self, name: str) -> str:
        if name not in self:
            raise AttributeError(name)
        return self[name]


def freeze(stages: Stages) -> dict[str, str]:
    """Freeze the prompts into JSON lines; return {split: file}."""
    cfg = stages.cfg
    task = tasks.load(cfg.task, "Prompts", {}, {})
    files: dict[str, str] = {}
    eval_keys: set[str] = set()

    for split in ("eval", "train"):
        prompts = []
        for name, source in cfg.prompts.sources(split).items():
            prompts += read_set(task, source, split, name, cfg.seed, eval_keys)[0]
        eval_keys = keys_of(prompts, task) if split == "eval" else eval_keys
        files[split] = f"{stages.run.folder}/prompts/{split}.jsonl"
        write_jsonl(files[split], prompts)

    return files


def answer(stages: Stages, prompts: str, model: str, rule: str, version: str, seed: str, output: str, n: int) -> str:
    """Generate and grade answers; return the file of graded answers."""
    run = stages.run
    shard = run.shards(version)[0]
    place = Path(output).parent.relative_to(run.folder)
    wildcards = {"n": n, "version": version, "shard": shard, "place": place}
    params = stages.params.generate(
        rule, seed=seed, version=version, ledger=f"{run.folder}/ledger/{rule}-{version}-{n}"
    )
    stages.call("generate", params, wildcards, "--prompts", prompts, "--model", model, "--output", output)

    graded = output.replace(".pkl", "_matchlog.pkl")
    ledger = f"{run.folder}/ledger/grade-{rule}-{version}-{n}"
    stages.call("grade", stages.params.grade(), wildcards, "--results", output, "--ledger", ledger, "--output", graded)
    return graded


def evaluate(stages: Stages, prompts: str, n: int) -> None:
    """Compute the metrics of a checkpoint."""
    run = stages.run
    output = f"{run.folder}/evaluation/r{n}/{run.shards('eval')[0]}.pkl"
    seed = f"{stages.cfg.seed}.eval"
    graded = answer(stages, prompts, run.checkpoint(n), "generate_eval", "eval", seed, output, n)
    params = stages.params.stage("evaluate")
    stages.call("evaluate", params, {"n": n}, "--results", graded, "--round", n, "--output", run.evaluation(n))


def cold_start(stages: Stages) -> None:
    """Make round 0: the model and its supervised training."""
    cfg, run, params_of = stages.cfg, stages.run, stages.params
    cold = settings_of(cfg.cold_start, "train")
    common = {"template": cfg.full_template, "seed": cfg.seed}
    params = params_of.stage("init_model", settings=settings_of(cfg.model), cold_start=cold, task=cfg.task, **common)
    stages.call("init_model", params, {}, "--output", run.initial_model)

    params = params_of.stage("construct_sft", settings=cold, **common)
    data = run.cold_start_data
    stages.call("construct_sft", params, {}, "--model", run.initial_model, "--output", data)

    params = params_of.train("cold_start", cfg.cold_start.train, seed=cfg.seed)
    options = ["--data", data, "--model", run.initial_model, "--round", 0, "--state", f"{run.folder}/state/r0"]
    stages.call("train", params, {}, *options, "--output", run.checkpoint(0))


def play_round(stages: Stages, prompts: str, n: int = 1) -> None:
    """Make round n: answers, grades, data, log-probs and training."""
    cfg, run, params_of = stages.cfg, stages.run, stages.params
    policy = run.checkpoint(n - 1)
    metas: dict[str, str] = {}

    for version in VERSIONS:
        output = f"{run.folder}/results/r{n}/{version}/{run.shards(version)[0]}.pkl"
        graded = answer(stages, prompts, policy, "generate", version, f"{cfg.seed}.r{n}", output, n)
        metas[version] = run.meta(n, version)
        params = params_of.stage("construct_meta", dedup=cfg.data.dedup)
        stages.call("construct_meta", params, {}, "--results", graded, "--output", metas[version])

    data = run.data(n)
    params = params_of.stage("construct_data", settings=settings_of(cfg.data), seed=cfg.seed, **metas)
    stages.call("construct_data", params, {}, "--model", policy, "--output", data)

    scored = f"{run.logp_folder(n)}/{run.shards('logp')[0]}.pkl"
    params = params_of.logp("logp")
    stages.call("logp", params, {"n": n}, "--data", data, "--model", policy, "--output", scored)

    params = params_of.train("train", cfg.train, seed=cfg.seed + n)
    options = ["--data", data, "--logp", scored, "--model", policy, "--round", n]
    options += ["--state", f"{run.folder}/state/r{n}", "--output", run.checkpoint(n)]
    stages.call("train", params, {"n": n}, *options)


def main() -> None:
    """Run one side in the current folder."""
    stages = Stages(config_of(sys.argv[1]))
    prompts = freeze(stages)
    cold_start(stages)
    evaluate(stages, prompts["eval"], 0)
    play_round(stages, prompts["train"])
    evaluate(stages, prompts["eval"], 1)
    print(json.dumps(read_json(stages.run.evaluation(1))))


if __name__ == "__main__":
    main()
