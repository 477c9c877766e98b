"""A rehearsal of a recipe: the smaller config that takes the recipe's place, and what surrounds its run.

The config of a rehearsal has the name of the run with `-rehearsal` added, so that nothing reaches the run itself.
"""

import atexit
import copy
import json
import os
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from snakemake.exceptions import WorkflowError

from workflow_scripts import tasks
from workflow_scripts.config.layout import Run
from workflow_scripts.config.load import Config, ConfigError, load
from workflow_scripts.core.files import write_json
from workflow_scripts.core.running.cli import merged
from workflow_scripts.workflow import config_files
from workflow_scripts.workflow.targets import targets_on_command_line

TARGET = "rehearse"
SUFFIX = "-rehearsal"
PROMPTS = 16  # of a split
MADE_UP = 6  # of a level
ROWS = 48  # of a file that is trained on
SAMPLES = 4  # per prompt
BATCH = 8  # rows or pairs per update


# ---------------------------------------------------------------- the smaller config


def smaller(recipe: Config, values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of the config that rehearses a recipe, from those of the recipe's own config."""
    name = f"{recipe.name}{SUFFIX}"
    changes: dict[str, Any] = {
        "name": name,
        "rounds": min(1, recipe.rounds),
        "shards": 1,
        "prompts_per_round": min(PROMPTS // 2, recipe.prompts_per_round) if recipe.prompts_per_round else None,
        "code_changes": "remake",
        "prompts": _smaller_splits(recipe),
        "generate": _smaller_generation(recipe, f"runs/{name}/rehearsal"),
        "logp": {"gpus": 0},
        "train": _smaller_training(values.get("train") or {}),
        "wandb": {"mode": "disabled"},
    }
    if recipe.cold_start:
        changes["cold_start"] = {"train": _smaller_training((values.get("cold_start") or {}).get("train") or {})}
        changes["cold_start"] |= _smaller_examples(recipe.cold_start)
    if recipe.data.source:
        changes["data"] = {"source": {"limit": min(ROWS, recipe.data.source.limit or ROWS)}}
    if recipe.evaluate.suites:
        changes["evaluate"] = {"suites": []}
    if recipe.reward_model:
        changes["reward_model"] = small_model(name, "encoder" if recipe.reward == "bertscore" else "reward")
    if isinstance(recipe.reward, list):
        changes["reward"] = [_smaller_part(part, name) for part in values["reward"]]
    if section := values.get(recipe.task):
        changes[recipe.task] = _smaller_section(recipe.task, section, name)

    result = merged(copy.deepcopy(values), changes)
    result.pop("python", None)
    result["generate"].pop("vllm", None)
    return _with_local_endpoints(result, endpoint_url(name))


def _smaller_part(part: Any, name: str) -> Any:
    """Return a part of a composed reward with a tiny model in place of its own."""
    if not isinstance(part, dict) or not part.get("model"):
        return part
    return part | {"model": small_model(name, "encoder" if part["reward"] == "bertscore" else "reward")}


def small_model(name: str, kind: str) -> str:
    """Return the folder of a tiny model beside the policy's: an encoder, or a reward model."""
    return f"runs/{name}/rehearsal/{kind}"


def _smaller_section(task: str, section: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the changes to the task's section: its own ones, tiny models, and short trainings."""
    part = tasks.part_class(task, "Rehearsal")
    changes = part.smaller(section)

    for kind, path in part.models(section).items():
        inner: dict[str, Any] = {path[-1]: small_model(name, kind)}
        for key in reversed(path[:-1]):
            inner = {key: inner}
        changes = merged(changes, inner)
    for key, value in section.items():
        if isinstance(value, dict) and "objective" in value:  # a section of a training
            changes[key] = _smaller_training(value)

    return changes


def _smaller_splits(recipe: Config) -> dict[str, Any]:
    """Return the changes to the splits of prompts: a few records of a file, or few made-up questions of each level."""
    changes: dict[str, Any] = {}

    for split in ("train", "pool", "eval"):
        of_sets = {name: _smaller_split(source) for name, source in recipe.prompts.sources(split).items()}
        if of_sets:
            changes[split] = of_sets.get("", of_sets)

    return changes


def _smaller_split(source: Any) -> dict[str, Any]:
    changes: dict[str, Any] = {"limit": min(PROMPTS, source.limit or PROMPTS)}
    if source.count:
        changes = {"count": {level: min(MADE_UP, count) for level, count in source.count.items()}}
    if sampling := getattr(source, "sampling", None):
        changes["sampling"] = _smaller_sampling(sampling.samples or SAMPLES)
    return changes


def _smaller_sampling(samples: int) -> dict[str, Any]:
    """Return the changes to a sampling: few samples, and nothing that the engine playback cannot do."""
    return {"samples": min(SAMPLES, samples), "repetition_penalty": 1.0, "structured": None}


def _smaller_generation(recipe: Config, folder: str) -> dict[str, Any]:
    """Return the changes to the section `generate`: scripts answer in place of policies, endpoints stay endpoints."""
    changes: dict[str, Any] = {
        "engine": "playback",
        "script": folder,
        "gpus": 0,
        "tensor_parallel": None,
    }

    for version in ("auto", "trigger", "eval", "pool"):
        sampling = getattr(recipe.generate, version)
        if sampling is None:
            continue
        changes[version] = _smaller_sampling(sampling.samples)
        changes[version]["engine"] = (
            recipe.generate.engine_of(version) if recipe.generate.is_remote(version) else "playback"
        )

    return changes


def _smaller_training(train: dict[str, Any]) -> dict[str, Any]:
    changes: dict[str, Any] = {
        "deepspeed": None,
        "processes": 1,
        "nodes": 1,
        "threads": 1,
        "epochs": 1,
        "batch_size": min(BATCH, train.get("batch_size", BATCH)),
    }
    if train.get("updates_per_round"):
        changes["updates_per_round"] = min(2, train["updates_per_round"])
    if (train.get("lora") or {}).get("bits"):  # 4 bits need a GPU
        changes["lora"] = {"bits": None}
    return changes


def _smaller_examples(cold_start: Any) -> dict[str, Any]:
    if not cold_start.count:
        return {"limit": min(ROWS, cold_start.limit or ROWS)}

    counts = {}
    for level, count in cold_start.count.items():
        is_plain = isinstance(count, int)
        counts[level] = min(ROWS, count) if is_plain else {kind: min(ROWS, n) for kind, n in count}
    return {"count": counts}


def _with_local_endpoints(value: Any, url: str) -> Any:
    """Return values in which all endpoints (sections with `base_url`) are the rehearsal's own server."""
    if isinstance(value, list):
        return [_with_local_endpoints(item, url) for item in value]
    if isinstance(value, list):
        return [_with_local_endpoints(item, url) for item in value]
    if not isinstance(value, dict):
        return value

    result = {key: _with_local_endpoints(item, url) for key, item in value.items()}
    if "base_url" in result:
        result |= {"base_url": url, "key_env": None, "requests_per_minute": None, "tokens_per_minute": None}
    return result


# ---------------------------------------------------------------- endpoints


def endpoint_port(name: str) -> int:
    """Return the port of a rehearsal's server: always the same, since results depend on an endpoint's address."""
    place = f"{Path.cwd()}/{name}"
    return 20_000 + zlib.crc32(place.encode()) % 10_000


def endpoint_url(name: str) -> str:
    return f"http://127.0.0.1:{endpoint_port(name)}/v1"


def has_endpoints(value: Any) -> bool:
    """Return whether a config's values contain an endpoint."""
    if isinstance(value, dict):
        return "base_url" in value or any(map(has_endpoints, value.values()))
    return isinstance(value, list) and any(map(has_endpoints, value))


# ---------------------------------------------------------------- the run


class Rehearsal:
    """The config of a run, and what a rehearsal adds to its rules. Without a rehearsal, `recipe` is None."""

    def __init__(self, values: dict[str, Any], files: Iterable[str | Path] = ()):
        """Read the values of a config. `cfg` is the config to run: the smaller one if a rehearsal is asked for.

        Raise WorkflowError with every fault of the config, and for keys that come twice in its files.
        """
        config_files.check(files)
        self.values = values
        self.recipe: Config | None = None
        self.started = 0.0  # when its first job was about to start

        try:
            self.cfg = load(values)
            if TARGET in targets_on_command_line():
                self.recipe = self.cfg
                self.cfg = load(smaller(self.recipe, values))
        except ConfigError as error:
            raise WorkflowError(str(error)) from None

        self.run = Run(self.cfg)
        self.wing = tasks.part_class(self.cfg.task, "Wing")(self.cfg, self.run)
        self.folder = f"{self.run.folder}/rehearsal"

    @property
    def recipe_file(self) -> str:
        """The values of both configs, as JSON."""
        return f"{self.folder}/recipe.json"

    @property
    def report(self) -> str:
        return f"{self.run.folder}/report/rehearsal.json"

    def scripts(self, version: str) -> list[str]:
        """Return the scripts that a version's answers come from; none outside of a rehearsal."""
        if self.recipe is None or self.cfg.generate.is_remote(version):
            return []
        split = version if version in ("eval", "pool") else "train"
        return [self.script(split)]

    def texts(self, splits: Iterable[str]) -> list[str]:
        """Return the files that the stand-in's tokenizer is trained on, if it cannot have the model's own."""
        sources = [self.cfg.cold_start and self.cfg.cold_start.file, self.cfg.data.source and self.cfg.data.source.file]
        files = [file for file in sources if file and Path(file).is_file()]
        return [*map(self.run.prompts, splits), *files]

    def script(self, split: str) -> str:
        return f"{self.folder}/script_{split}.json"

    def versions(self, split: str) -> list[str]:
        """Return the versions in which the prompts of a split are asked."""
        return [version for version in self.cfg.versions if self.scripts(version) == [self.script(split)]]

    # ------------------------------------------------------------ before and after the jobs

    def begin(self, is_local: bool) -> None:
        """Write down the recipe, forget the answers of an earlier rehearsal, and start the server for endpoints.

        Raise WorkflowError if jobs would run elsewhere: they would not know that they are part of a rehearsal.
        """
        if self.recipe is None:
            return
        if not is_local:
            raise WorkflowError("rehearse: a rehearsal runs on this machine; use `--profile local`")

        write_json(self.recipe_file, {"recipe": self.values, "rehearsal": smaller(self.recipe, self.values)})
        shutil.rmtree(self.run.ledger(), ignore_errors=True)
        self.started = time.time()

        for kind in ("encoder", "reward"):
            if small_model(self.cfg.name, kind) in str(self.cfg.model_dump()):
                self._make_model(kind)
        if has_endpoints(self.cfg.model_dump(mode="json")):
            self._start_server()

    def _make_model(self, kind: str) -> None:
        folder = Path(small_model(self.cfg.name, kind))
        if not (folder / "config.json").is_file():
            command = [sys.executable, "-m", "workflow_scripts.rehearsal.small_models", "--kind", kind]
            subprocess.run([*command, "--output", str(folder)], env=_environment(), check=True)

    def _start_server(self) -> None:
        command = [sys.executable, "-m", "workflow_scripts.rehearsal.endpoint", "--task", self.cfg.task]
        command += ["--port", str(endpoint_port(self.cfg.name))]
        command += ["--task-settings", json.dumps(self.wing.settings("script"))]
        for name, path in self.wing.files("script").items():
            command += ["--task-file", f"{name}={path}"]
        server = subprocess.Popen(command, env=_environment(), stdin=subprocess.PIPE)
        atexit.register(server.terminate)

    def after_error(self) -> None:
        """Report what was found although a stage failed."""
        path = Path(self.report)
        is_reported = path.exists() and path.stat().st_mtime > self.started
        if self.recipe is None or not self.started or is_reported:
            return

        command = [sys.executable, "-m", "workflow_scripts.rehearse"]
        command += ["--recipe", self.recipe_file, "--run", self.run.folder, "--since", str(self.started)]
        subprocess.run(command, env=_environment(), check=False)


def _environment() -> dict[str, str]:
    """Return the environment of a process that runs a module of this repository."""
    return dict(os.environ) | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
