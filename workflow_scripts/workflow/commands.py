"""The shell commands of rules: where a stage runs and how endpoints are called. No result depends on that."""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from workflow_scripts.config.layout import Run
from workflow_scripts.config.load import Config
from workflow_scripts.config.rewards import needs_model
from workflow_scripts.config.sections import Train, endpoints_of, settings_of
from workflow_scripts.core.running.status import with_status
from workflow_scripts.tasks.defaults import Wing
from workflow_scripts.workflow.environments import Environments

LAUNCH = "-m workflow_scripts.core.running.launch"


def shell_prefix(cfg: Config, basedir: str, uses_own_environments: bool) -> str:
    """Return what comes before every shell command: the Python, where it finds the stages, and wandb's variables.

    Jobs run the Python that runs Snakemake, or, with `--sdm conda`, that of their environment. They have no terminal:
    transformers would ask there whether it may run the code of a model.
    """
    path = "" if uses_own_environments else f"PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH "
    variables = {"WANDB_MODE": cfg.wandb.mode, "WANDB_PROJECT": cfg.wandb.project or cfg.name}
    variables |= {"TRACKING": cfg.tracking} if cfg.tracking != "wandb" else {}
    exports = " ".join(f"{name}={shlex.quote(os.environ.get(name, value))}" for name, value in variables.items())
    return escaped(f"set -euo pipefail; export {path}PYTHONPATH={shlex.quote(basedir)} {exports}; exec </dev/null; ")


def escaped(text: str) -> str:
    """Return a text without meaning for Snakemake's formatting."""
    return text.replace("{", "{{").replace("}", "}}")


class Commands:
    """Builds the commands of rules."""

    def __init__(self, cfg: Config, run: Run, wing: Wing, environments: Environments):
        self.cfg = cfg
        self.run = run
        self.wing = wing
        self.environments = environments

    def stage(self, module: str, arguments: str, gpu: bool = False, process_per_gpu: bool = False) -> str:
        """Return the command of a stage: its parameters, further arguments, and a log that ends with the exit status
        if the stage fails (core/running/status.py).

        `gpu` runs it on the GPUs that the rule asks for, and `process_per_gpu` in as many processes.
        """
        options = "--gpus {resources.gpu}" + (" --process-per-gpu" if process_per_gpu else "")
        start = f"python {LAUNCH} {options} --" if gpu else "python -m"
        return with_status(f"{start} workflow_scripts.{module} {{params}} {arguments}")

    def more_shards(self) -> str:
        """Return the further numbers of shards of a stage that writes prompts, as an option; nothing if there are none.

        It is part of the command, because only the answers of the stages with these shards depend on it.
        """
        more = [str(count) for count in self.cfg.shards.of_prompts if count != self.cfg.shards.auto]
        return " ".join(["--more-shards", *more]) if more else ""

    def slice_prompts(self) -> str:
        """Return the command that writes the digest files of the prompts that round n answers."""
        counts = sorted({self.cfg.shards.of("auto"), self.cfg.shards.of("trigger")}, reverse=True)
        folder = Path(self.run.answered_digest("{wildcards.n}")).parent
        return self.stage(
            "slice_prompts",
            "--prompts {input.prompts} --round {wildcards.n} "
            f"--size {self.cfg.prompts_per_round} --seed {self.cfg.seed} --shards {' '.join(map(str, counts))} "
            f"--output {folder}",
        )

    def generate(self, arguments: str) -> str:
        """Return the command of a rule that generates answers, in the Python of its engine's environment."""
        python = self.environments.command(self.environments.of_generation)
        generate = self.cfg.generate
        options = ["--gpus {resources.gpu}", f"--save-seconds {generate.save_seconds:g}"]
        options.append(f"--keep-engine {generate.keep_engine:g}")
        options += [f"--tensor-parallel {generate.tensor_parallel}"] if generate.tensor_parallel else []
        options += [f"--programs {generate.programs}"] if generate.programs else []
        limits = settings_of(generate.vllm, include=set(generate.vllm.ONLY_HOW))
        options += [f"--vllm {escaped(shlex.quote(json.dumps(limits, sort_keys=True)))}"] if limits else []
        endpoints = {"generate": endpoints_of(generate), "task": self.wing.endpoints("generate")}
        options.append(self.endpoint_options(endpoints))

        arguments = " ".join([*filter(None, options), arguments])
        return with_status(f"{python} -m workflow_scripts.generate {{params}} {arguments}")

    def train(self, train: Train, arguments: str) -> str:
        """Return the command of a training rule, with a process for each GPU, in the Python of its environment."""
        python = self.environments.command(train.environment)
        launch = (
            f"{python} {LAUNCH} --gpus {{resources.gpu}} --processes {{resources.processes}} "
            "--nodes {resources.nodes} --threads {threads} --"
        )
        options = f"--curves {self.run.folder}/{self.cfg.tracking}"
        if train.engine_weights:
            options += f" --engine-weights {train.engine_weights}"
        return with_status(f"{launch} workflow_scripts.train {{params}} {options} {arguments}")

    def reward(self, module: str, reward: str | None, arguments: str) -> str:
        """Return the command of a stage that computes a reward, on a GPU if a model computes it."""
        options = self.endpoint_options({"task": self.wing.endpoints(module)})
        return self.stage(module, f"{options} {arguments}", gpu=needs_model(reward))

    def suite(self, arguments: str) -> str:
        """Return the command that runs a benchmark suite, in the Python of its backend's environment."""
        python = self.environments.command(self.cfg.evaluate.environment)
        launch = f"{python} {LAUNCH} --gpus {{resources.gpu}}"
        return with_status(f"{launch} -- workflow_scripts.run_suite {{params}} {arguments}")

    def reward_part(self, arguments: str) -> str:
        """Return the command of a rule that computes a part of a reward, on the GPUs that the part asks for."""
        endpoints = {name: endpoints_of(part) for name, part in self.cfg.reward_parts.items()}
        options = self.endpoint_options({"rewards": {name: value for name, value in endpoints.items() if value}})
        return self.stage("reward", f"{options} {arguments}", gpu=True)

    def combine_rewards(self, arguments: str) -> str:
        """Return the command of the rule that adds up the parts of a reward."""
        names = self.run.all_reward_values()
        values = " ".join(f"{name}={path}" for name, path in names.items())
        values = values.replace("{place}", "{wildcards.place}").replace("{shard}", "{wildcards.shard}")
        return self.stage("combine_rewards", " ".join([f"--values {values}" if values else "", arguments]))

    def judge(self, arguments: str) -> str:
        """Return the command of the judge."""
        options = self.endpoint_options({"judge": endpoints_of(self.cfg.judge)})
        return self.stage("judge", f"{options} {arguments}")

    def endpoint_options(self, endpoints: dict[str, Any]) -> str:
        """Return how endpoints are called and where their ledgers are, as options; nothing if there are none."""
        endpoints = {name: value for name, value in endpoints.items() if value}
        if not endpoints:
            return ""

        values = escaped(shlex.quote(json.dumps(endpoints, sort_keys=True)))
        return f"--endpoints {values} --requests {self.run.ledger()}"
