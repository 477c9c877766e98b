"""Before the first job starts: one list of everything that the pending jobs need and that is missing.

A dry run prints the same list at its end. Needs are declared where they arise: engines, rewards and the sections of the
config for training name their packages and environments. Only jobs that are pending count.
"""

import atexit
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from snakemake.exceptions import WorkflowError

from workflow_scripts import tasks
from workflow_scripts.config.load import Config
from workflow_scripts.config.rewards import is_trained_here
from workflow_scripts.config.sections import TRACKERS, Train, endpoints_of
from workflow_scripts.core.running import hub, plugins
from workflow_scripts.core.running.launch import candidate_gpus
from workflow_scripts.core.sandbox import missing_isolation
from workflow_scripts.core.sources import is_on_hub
from workflow_scripts.rewards import parts_of
from workflow_scripts.starting.models import has_chat_template
from workflow_scripts.tasks.defaults import Wing
from workflow_scripts.workflow.environments import GENERAL, Environments
from workflow_scripts.workflow.freezing import Freezing
from workflow_scripts.workflow.retention import Retention
from workflow_scripts.workflow.targets import executor_on_command_line

PACKAGES = ("numpy", "pyarrow", "pydantic", "torch", "tqdm", "transformers")  # of stages in the general environment
LOADING = ("accelerate",)  # of training, beyond those
PROGRAMS = {"slurm": ("sbatch", "squeue")}  # of an executor
FIND = (
    "import importlib.util, json, sys; print(json.dumps([n for n in sys.argv[1:] if not importlib.util.find_spec(n)]))"
)


class Preflight:
    """Looks for what is missing before a run."""

    def __init__(self, cfg: Config, wing: Wing, environments: Environments, freezing: Freezing, retention: Retention):
        self.cfg = cfg
        self.wing = wing
        self.environments = environments
        self.freezing = freezing
        self.retention = retention

    def before_start(self, workflow: Any) -> None:
        """Raise WorkflowError with everything that is missing for the pending jobs. Print warnings."""
        self.print_warnings()
        if missing := self.missing(workflow.dag.needrun_jobs(), workflow.executor_plugin.name):
            raise WorkflowError(as_list(missing))

    def watch_dry_run(self, workflow: Any) -> None:
        """Arrange that a dry run ends with the list."""

        def at_end() -> None:
            if workflow.dryrun and getattr(workflow, "_dag", None) is not None:
                jobs = workflow.dag.needrun_jobs(exclude_finished=False)
                if jobs:
                    self.print_warnings()
                if missing := self.missing(jobs, executor_on_command_line()):
                    print(f"\n{as_list(missing)}", file=sys.stderr, flush=True)

        atexit.register(at_end)

    def print_warnings(self) -> None:
        """Print what is probably not meant."""
        for warning in self.warnings():
            print(f"warning: {warning}", file=sys.stderr, flush=True)

    def warnings(self) -> Iterator[str]:
        """Yield a sentence for each thing in the config that is probably not meant."""
        model = self.cfg.model.path
        if model is None:
            return

        if "template" not in self.cfg.model_fields_set and has_chat_template(Path(model)):
            yield (
                f"template: {model} has a chat template, but the config names none, so questions are asked as "
                "`User:… Assistant:`; say `template: chat`, or `template: deepseek` if this is meant"
            )
        if self.cfg.cold_start and self.cfg.cold_start.count:
            yield (
                f"cold_start.count: {model} is trained on examples that the task makes up before the first round; a "
                "model that exists needs no cold start: remove the section, or name a file of yours in it"
            )

    def missing(self, jobs: Iterable[Any], executor: str) -> list[str]:
        """Return a sentence for each thing that is missing for these jobs under an executor of Snakemake."""
        is_local = executor == "local"
        jobs = [job for job in jobs if job.rule.shellcmd]
        sentences = [*self._programs(jobs, executor)]
        if not self.environments.uses_conda:
            sentences += [*self._packages(jobs), *self._tracker(jobs)]
        if is_local:
            sentences += [*self._gpus(jobs), *self._isolation(jobs)]
        sentences += [*self._keys(jobs), *self._from_hub(jobs), *self.retention.missing(jobs)]
        return list(dict.fromkeys(sentences))

    # ------------------------------------------------------------ what a job is

    def _engine(self, job: Any) -> str | None:
        """Return the engine of a job that generates answers."""
        versions = {"generate_eval": "eval", "generate_pool": "pool"}
        if job.rule.name == "generate":
            return self.cfg.generate.engine_of(job.wildcards.version)
        return self.cfg.generate.engine_of(versions[job.rule.name]) if job.rule.name in versions else None

    def _training(self, job: Any) -> Train | None:
        """Return the config section of a job that trains."""
        general = {"train": self.cfg.train, "cold_start": self.cfg.cold_start and self.cfg.cold_start.train}
        return general.get(job.rule.name) or self.wing.training(job.rule.name)

    def _reward(self, job: Any) -> str | None:
        """Return the reward that a job computes."""
        if job.rule.name == "reward":
            return self.cfg.reward_parts[job.wildcards.part].reward
        return self.cfg.chosen_reward if job.rule.name == "grade" else self.wing.reward(job.rule.name)

    def _needs(self, job: Any) -> tuple[str, tuple[str, ...]]:
        """Return the environment of a job and the packages that it imports."""
        if engine := self._engine(job):
            return self.environments.of_generation, plugins.constants("engines", engine).get("PACKAGES", ())
        if training := self._training(job):
            return training.environment, (*PACKAGES, *LOADING, *training.packages)
        if job.rule.name == "run_suite":
            return self.cfg.evaluate.environment, self.cfg.evaluate.packages
        if job.rule.name == "freeze_prompts" and self.cfg.prompts.screening:
            return GENERAL, (*PACKAGES, "rensa")
        if self._endpoints(job):
            return GENERAL, (*PACKAGES, *plugins.constants("engines", "openai").get("PACKAGES", ()))
        if (reward := self._reward(job)) in plugins.names("rewards"):
            constants = [plugins.constants("rewards", part) for part in parts_of(reward or "")]
            return GENERAL, (*PACKAGES, *(name for values in constants for name in values.get("PACKAGES", ())))
        return GENERAL, PACKAGES

    def _endpoints(self, job: Any) -> list[dict[str, Any]]:
        """Return how the endpoints are called that a job sends requests to."""
        endpoints = [self.wing.endpoints(job.rule.name)]
        engine = self._engine(job)
        if engine and plugins.constants("engines", engine).get("REMOTE"):
            endpoints.append(endpoints_of(self.cfg.generate))
        if job.rule.name == "judge":
            endpoints.append(endpoints_of(self.cfg.judge))
        if job.rule.name == "reward":
            endpoints.append(endpoints_of(self.cfg.reward_parts[job.wildcards.part]))
        return [section for section in endpoints if section]

    # ------------------------------------------------------------ checks

    def _programs(self, jobs: list[Any], executor: str) -> Iterator[str]:
        programs = [name for name in PROGRAMS.get(executor, ()) if jobs and not shutil.which(name)]

        if programs:
            yield (
                f"{_in_words(programs)} of {executor.capitalize()} {_is(programs)} not on the path: "
                "run on a login node of the cluster, or use `--profile local`"
            )
        if executor == "local" and not self.environments.uses_conda:  # nodes of a cluster may have what is not here
            trainings = filter(None, map(self._training, jobs))
            for program in sorted({program for training in trainings for program in training.programs}):
                if not shutil.which(program):
                    yield f"training needs the program {program}, which is not on the path: install a C++ compiler"
        if jobs and self.environments.uses_conda and not shutil.which("conda"):
            yield "conda is not on the path: install it, or leave out `--sdm conda` and see `make setup-gpu`"

    def _packages(self, jobs: list[Any]) -> Iterator[str]:
        rules: dict[str, set[str]] = defaultdict(set)
        packages: dict[str, set[str]] = defaultdict(set)
        for job in jobs:
            environment, names = self._needs(job)
            rules[environment].add(job.rule.name)
            packages[environment] |= set(names)

        for environment, names in packages.items():
            python = self.environments.python(environment)
            stages = ", ".join(sorted(rules[environment]))
            missing = lacking(python, tuple(sorted(names)))
            if missing is None:
                yield f"python.{environment}: {python} does not run ({stages}); name a Python that has its packages"
            elif missing:
                yield f"{stages}: {python} lacks {_in_words(missing)}; {self._advice(environment)}"

    def _tracker(self, jobs: list[Any]) -> Iterator[str]:
        packages = TRACKERS[self.cfg.tracking]
        if self.cfg.tracking == "wandb":  # training goes on without it
            return

        for environment in {training.environment for training in map(self._training, jobs) if training}:
            python = self.environments.python(environment)
            missing = lacking(python, packages)
            if missing is not None and len(missing) == len(packages):
                yield (
                    f"tracking: {self.cfg.tracking} is not installed in {python}: pip install {self.cfg.tracking}, or "
                    "set tracking: wandb"
                )

    def _advice(self, environment: str) -> str:
        if environment == GENERAL:
            return "install with `pip install -r envs/requirements.txt -c envs/constraints.txt`, or use --sdm conda"
        if environment in self.cfg.python:
            return f"install envs/{environment}.txt there, or name another Python as `python: {{{environment}: PATH}}`"
        return (
            f"run `make setup-gpu`, which builds .venv-{environment}, name a Python that has it "
            f"(`python: {{{environment}: PATH}}`), or use --sdm conda"
        )

    def _gpus(self, jobs: list[Any]) -> Iterator[str]:
        gpus_by_rule = {job.rule.name: _gpus_of(job) for job in jobs if _gpus_of(job)}
        if not gpus_by_rule:
            return
        try:
            here = candidate_gpus()
        except SystemExit as error:  # nvidia-smi fails
            yield str(error).removeprefix("error: ")
            return

        for rule, count in gpus_by_rule.items():
            if here and count > len(here):
                yield (
                    f"{rule} asks for {count} GPUs, but there are {len(here)} here: lower `gpus` or `processes`, or "
                    "use a cluster"
                )

        if not here:
            yield from self._gpu_builds(jobs)

    def _gpu_builds(self, jobs: list[Any]) -> Iterator[str]:
        """Yield engines whose installed build runs on GPUs only, on a machine that has none."""
        for engine in {self._engine(job) for job in jobs} - {None}:
            distribution = plugins.constants("engines", str(engine)).get("GPU_DISTRIBUTION")
            python = self.environments.python(self.environments.of_generation)
            if distribution and has_distribution(python, distribution):
                yield f"generate.engine {engine}: {distribution} in {python} runs on GPUs only, and there is none here"

    def _isolation(self, jobs: list[Any]) -> Iterator[str]:
        runs_programs = tasks.part_class(self.cfg.task, "Grading").runs_programs
        is_run = any(job.rule.name.startswith(("generate", "grade")) for job in jobs)
        if runs_programs and is_run and self.cfg.sandbox == "on" and (missing := missing_isolation()):
            yield (
                f"programs that the model writes cannot be isolated here: {'; '.join(missing)}. Use Linux 5.13 or "
                "newer with Landlock enabled, or set `sandbox: off` to run them unprotected"
            )

    def _keys(self, jobs: list[Any]) -> Iterator[str]:
        for job in jobs:
            for variable in sorted(_key_variables(self._endpoints(job))):
                if not os.environ.get(variable):
                    yield f"the environment variable {variable} is not set; it holds an endpoint's key (`key_env`)"

            mode = os.environ.get("WANDB_MODE", self.cfg.wandb.mode)
            if self._training(job) and mode == "online" and not os.environ.get("WANDB_API_KEY"):
                yield "the environment variable WANDB_API_KEY is not set; `wandb.mode: online` needs it"

    def _from_hub(self, jobs: list[Any]) -> Iterator[str]:
        rules = {job.rule.name for job in jobs}
        models = {}

        if "init_model" in rules and self.cfg.model.path:
            models["model.path"] = self.cfg.model.path
        if self.cfg.reward_model and any(getattr(job.params, "reward_model", "") for job in jobs):
            models["reward_model"] = self.cfg.reward_model
        for name in sorted({job.wildcards.part for job in jobs if job.rule.name == "reward"}):
            part = self.cfg.reward_parts[name]
            if part.model and not is_trained_here(self.cfg, part):
                models[f"reward.{name}.model"] = part.model
        for rule in sorted(rules):
            models |= self.wing.models(rule)

        faults = [_model_fault(key, path) for key, path in models.items()]
        if "freeze_prompts" in rules:
            faults += [hub.fault("prompts", file, "dataset") for file in self.freezing.files if is_on_hub(file)]
        yield from filter(None, faults)


# ---------------------------------------------------------------- facts about models, Pythons and jobs


def _model_fault(key: str, path: str) -> str | None:
    """Return why a stage will not get the model that a config key names, in a folder or on the hub, or None."""
    if Path(path).is_dir():
        return None
    if path.count("/") > 1 or path.startswith((".", "/", "~")):
        return f"{key}: there is no folder {path}, and a name on the hub would be owner/name"
    return hub.fault(key, path)


@cache
def lacking(python: str, packages: tuple[str, ...]) -> list[str] | None:
    """Return the packages that a Python cannot find; None if it does not run."""
    if python == sys.executable:
        return [name for name in packages if importlib.util.find_spec(name) is None]
    return _ask(python, FIND, *packages)


@cache
def has_distribution(python: str, name: str) -> bool:
    """Return whether a distribution, by its name in package lists, is installed in a Python."""
    code = (
        "import importlib.metadata as m, sys; print(int(any(True for _ in m.Distribution.discover(name=sys.argv[1]))))"
    )
    return bool(_ask(python, code, name))


def _ask(python: str, code: str, *arguments: str) -> Any:
    """Return the JSON value that a program prints in another Python; None if it does not run."""
    try:
        answer = subprocess.run([python, "-I", "-c", code, *arguments], capture_output=True, text=True, timeout=60)
        return json.loads(answer.stdout)
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return None


def _gpus_of(job: Any) -> int:
    gpus = job.resources.get("gpu", 0)
    return gpus if isinstance(gpus, int) else 0


def _key_variables(value: Any) -> set[str]:
    """Return the variables that nested settings of endpoints name as `key_env`."""
    if isinstance(value, dict):
        own = {value["key_env"]} if value.get("key_env") else set()
        return own.union(*map(_key_variables, value.values()))
    if isinstance(value, list):
        return set().union(*map(_key_variables, value))
    return set()


def _in_words(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _is(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"


def as_list(sentences: list[str]) -> str:
    """Return the message about what is missing."""
    return "\n".join(["What the pending jobs need is missing here:", *(f"  - {sentence}" for sentence in sentences)])
