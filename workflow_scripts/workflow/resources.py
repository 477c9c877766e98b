"""Compute what jobs ask of a scheduler (memory, time, GPUs and nodes) from what the config says of the model.

Memory and time are per node and for the first attempt; each further attempt asks for half as much again. Time need not
suffice: long stages save before it is up and go on in the next attempt. Override the requests with
`--set-resources train:runtime=600`.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from snakemake.exceptions import WorkflowError

from workflow_scripts.config.load import Config
from workflow_scripts.config.rewards import needs_model
from workflow_scripts.config.sections import Model, Train
from workflow_scripts.tasks.defaults import Wing
from workflow_scripts.training.limits import FILE_BYTES
from workflow_scripts.training.memory import state_bytes

PROCESS_MB = 4000  # what a process takes before its first weight: Python, torch, the host's side of CUDA
DATA_MB = 1000  # the least that a stage without a model asks for
DAY = 1440  # minutes
FILE_MB = FILE_BYTES / 1e6  # of published weights, which are gathered and written file by file
REWARD_MODEL_MB = 20_000  # a reward model of 8 billion parameters in bf16, and a process
BYTES = {"float32": 4, "bfloat16": 2}

Resources = dict[str, Any]
Size = tuple[float, float]  # MB, minutes


# ---------------------------------------------------------------- sizes


def parameters(model: Model) -> float:
    """Return how many parameters a model has. Raise ValueError if only its publisher knows."""
    if (scratch := model.scratch) is not None:
        block = 4 * scratch.width**2 + 3 * scratch.width * scratch.mlp_width
        return scratch.layers * block + scratch.vocabulary * scratch.width

    if model.parameters:
        return model.parameters

    folder = Path(model.path or "")
    weights = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    if not weights:
        raise ValueError(
            f"model.parameters: {model.path} is not a folder with weights in .safetensors files. Give the number of "
            "the model's parameters, such as `parameters: 7e9`: the memory and time asked of a cluster follow from it"
        )

    return sum(map(_stored_parameters, weights))


def _stored_parameters(path: Path) -> int:
    """Return how many numbers a .safetensors file holds, by its header."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


def weights_mb(cfg: Config) -> float:
    """Return the size of the model's fp32 weights."""
    return parameters(cfg.model) * 4 / 1e6


def billions(cfg: Config) -> float:
    """Return how many billion parameters the model has."""
    return parameters(cfg.model) / 1e9


def size_of_model(cfg: Config) -> Size:
    """Size the stage that downloads or makes the model: it passes through memory once."""
    return PROCESS_MB + 2 * weights_mb(cfg), 60 + 20 * billions(cfg)


def size_of_merge(cfg: Config, models: int) -> Size:
    """Size a stage that merges so many models in fp32 with the one that they started from."""
    return PROCESS_MB + (2 + models) * weights_mb(cfg), 60 + 10 * (1 + models) * billions(cfg)


def size_of_generation(cfg: Config) -> Size:
    """Size a shard of answers, in any version: the weights pass through memory on their way to the GPUs."""
    generate = cfg.generate
    tokens = max(getattr(generate, version).max_tokens for version in cfg.versions)
    tokens = max([tokens, *(cfg.of_set(name).generate.eval.max_tokens for name in cfg.prompts.sets_apart)])
    gpus = max(1, generate.gpus)
    split = generate.tensor_parallel or generate.gpus or 1
    is_split = "transformers" not in map(generate.engine_of, cfg.versions)
    replicas = max(1, gpus // split) if is_split else gpus

    memory = PROCESS_MB * gpus + 1.2 * replicas * weights_mb(cfg) * BYTES[generate.dtype] / 4
    return memory, 60 + 30 * billions(cfg) * tokens / 1024


def size_of_suite(cfg: Config) -> Size:
    """Size a benchmark suite. How many questions it has is unknown here, so its time is a guess."""
    return PROCESS_MB + 1.2 * weights_mb(cfg) * BYTES[cfg.evaluate.dtype] / 4, 120 + 60 * billions(cfg)


def size_of_scoring(cfg: Config) -> Size:
    """Size a shard of log-probs: the first process loads the fp32 weights and sends their parts to the others."""
    return max(1, cfg.logp.gpus) * PROCESS_MB + weights_mb(cfg), 60 + 10 * billions(cfg)


def size_of_training(cfg: Config, train: Train) -> Size:
    """Size one node of a training stage.

    The first process loads the weights (with ZeRO below stage 3, each process does). It gathers them again file by file
    to publish them. Moments may be offloaded to memory. A small model may train on a CPU, where gradients, moments and
    activations are in memory too.
    """
    weights = weights_mb(cfg)
    zero = train.deepspeed
    loaded = train.processes if zero and zero.stage < 3 else 1
    published = min(weights, 2 * FILE_MB)
    offloaded = 4 * weights / train.nodes if zero and zero.offload else 0
    on_cpu = state_bytes(parameters(cfg.model)) / 1e6 if weights < PROCESS_MB else 0

    memory = train.processes * PROCESS_MB + loaded * weights + published + max(offloaded, on_cpu)
    return memory, 60 + 60 * billions(cfg)


def sizes_of_stages(cfg: Config) -> dict[str, tuple[int, int, Size]]:
    """Return {stage: (jobs, GPUs of each, size of each)} of the stages of a round that hold the model."""
    sizes = {}

    if cfg.cold_start:
        train = cfg.cold_start.train
        sizes["cold_start (once)"] = (train.nodes, train.processes, size_of_training(cfg, train))
    for version in cfg.versions:
        if getattr(cfg.generate, version) and not (cfg.data.source and version == "auto"):
            sizes[f"generate {version}"] = (cfg.shards.of(version), cfg.generate.gpus, size_of_generation(cfg))
    if cfg.train.needs_behaviour or cfg.train.needs_reference:
        sizes["logp"] = (cfg.shards.of("logp"), cfg.logp.gpus, size_of_scoring(cfg))
    sizes["train"] = (cfg.train.nodes, cfg.train.processes, size_of_training(cfg, cfg.train))

    return sizes


# ---------------------------------------------------------------- resources of rules


class ResourcesOfRules:
    """Builds the resources of rules from a config."""

    def __init__(self, cfg: Config, wing: Wing, is_local: bool):
        """`is_local` tells that no scheduler is asked, so unknown sizes do no harm."""
        self.cfg = cfg
        self.wing = wing
        self.is_local = is_local

    def model(self) -> Resources:
        """The stage that provides the model."""
        return self._by_attempt(size_of_model)

    def merge(self, models: int) -> Resources:
        """A stage that merges so many models with the one that they started from."""
        return self._by_attempt(size_of_merge, models)

    def scoring(self, gpus: int | None = None) -> Resources:
        """A stage that scores data under a model."""
        gpus = self.cfg.logp.gpus if gpus is None else gpus
        return self._by_attempt(size_of_scoring) | {"gpu": gpus, "nodes": 1}

    def data(self, rule: str = "") -> Resources:
        """A stage without a GPU that holds its inputs in memory as Python objects."""
        least = PROCESS_MB if rule and self.wing.loads_model(rule) else DATA_MB

        def mem_mb(wildcards, input, attempt):
            return (attempt + 1) * (least + 10 * int(input.size_mb))

        return {"mem_mb": mem_mb, "runtime": lambda wildcards, attempt: (attempt + 1) * 30}

    def called_data(self, rule: str) -> Resources:
        """A stage without a GPU that may call an endpoint of the task's section."""
        if not self.wing.calls_endpoint(rule):
            return self.data(rule)
        return self.data(rule) | {"runtime": DAY, "api": 1}

    def reward(self, rule: str, reward: str | None) -> Resources:
        """A stage that computes rewards. A reward that a model computes takes a GPU and memory for 8B parameters."""
        if not needs_model(reward):
            return self.called_data(rule)
        return self.called_data(rule) | {"gpu": 1, "mem_mb": lambda wildcards, attempt: (attempt + 1) * REWARD_MODEL_MB}

    def reward_model_training(self) -> Resources:
        """The training of a reward model, which is as large as the run's own model."""
        train = Train(tokens_per_bin=8192)
        return self._by_attempt(size_of_training, train) | {"gpu": self.cfg.train_reward_model.gpus, "nodes": 1}  # type: ignore

    def reward_part(self) -> Resources:
        """A part of a composed reward: it runs a model, waits for a judge, or computes a formula."""
        parts = self.cfg.reward_parts
        plain = self.data()

        def mem_mb(wildcards, input, attempt):
            model = (attempt + 1) * REWARD_MODEL_MB if needs_model(parts[wildcards.part].reward) else 0
            return max(model, plain["mem_mb"](wildcards, input, attempt))

        def runtime(wildcards, attempt):
            return DAY if parts[wildcards.part].judge else plain["runtime"](wildcards, attempt)

        return {
            "mem_mb": mem_mb,
            "runtime": runtime,
            "gpu": lambda wildcards: int(needs_model(parts[wildcards.part].reward)),
            "api": lambda wildcards: int(parts[wildcards.part].judge is not None),
        }

    def endpoint(self, is_called: bool = True) -> Resources:
        """A stage that waits for an endpoint, or for a script in its place."""
        return {"mem_mb": PROCESS_MB, "runtime": DAY, "api": int(is_called)}

    def generation(self, rule: str, version: str | None = None) -> Resources:
        """A shard of answers, by a model on GPUs or by an endpoint. Without a version, the version is a wildcard."""
        model = self._by_attempt(size_of_generation)
        calls_endpoint = int(self.wing.calls_endpoint(rule))

        def choose(remote: int, local: Callable[[Any, int], int]):
            def chosen(wildcards, attempt):
                is_remote = self.cfg.generate.is_remote(version or wildcards.version)
                return remote if is_remote else local(wildcards, attempt)

            return chosen

        return {
            "mem_mb": choose(PROCESS_MB, model["mem_mb"]),
            "runtime": choose(DAY, model["runtime"]),
            "gpu": choose(0, lambda wildcards, attempt: self.cfg.generate.gpus),
            "api": choose(1, lambda wildcards, attempt: calls_endpoint),
            "nodes": 1,
        }

    def suite(self) -> Resources:
        """A benchmark suite on a checkpoint."""
        return self._by_attempt(size_of_suite) | {"gpu": self.cfg.evaluate.gpus, "nodes": 1}

    def training(self, train: Train) -> Resources:
        """A training stage, with one GPU per process. On several nodes srun starts it, which the plugin calls mpi."""
        sizes = self._by_attempt(size_of_training, train) | {"processes": train.processes, "nodes": train.nodes}

        if train.nodes == 1:
            return sizes | {"gpu": train.processes}
        return sizes | {
            "gpu": 0,
            "mpi": "srun",
            "tasks": train.nodes,
            "slurm_extra": f"--gpus-per-node={train.processes}",
        }

    def _by_attempt(self, size: Callable[..., Size], *arguments: Any) -> Resources:
        """Return memory (MB) and time (minutes, at most a day); each further attempt asks for half as much again."""

        def ask(which: int, attempt: int) -> int:
            try:
                return (attempt + 1) * round(size(self.cfg, *arguments)[which]) // 2
            except ValueError as error:
                if self.is_local:
                    return 0
                raise WorkflowError(f"config: {error}") from None

        return {
            "mem_mb": lambda wildcards, attempt: ask(0, attempt),
            "runtime": lambda wildcards, attempt: min(ask(1, attempt), DAY),
        }
