"""Prompts from files are frozen, and the shards' digests brought up to date, while Snakemake reads the Snakefile.

This cannot wait for a job: which shards an edited file changes must be known when jobs are planned.
"""

import glob
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

from snakemake.exceptions import WorkflowError

from workflow_scripts import freeze_prompts, screen_prompts, tasks
from workflow_scripts.config.layout import Run
from workflow_scripts.config.load import Config
from workflow_scripts.config.rewards import is_trained_here, needs_model
from workflow_scripts.config.sections import settings_of
from workflow_scripts.core import shards
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json
from workflow_scripts.core.running.cli import say
from workflow_scripts.core.running.code import code_identity
from workflow_scripts.core.running.manifest import file_digest, manifest_of
from workflow_scripts.core.slices import rounds_per_pass
from workflow_scripts.core.sources import is_file, is_on_hub, state_of
from workflow_scripts.rewards import own_file
from workflow_scripts.tasks.defaults import Wing
from workflow_scripts.workflow.attempts import is_locked


def is_model_on_hub(cfg: Config) -> bool:
    """Return whether the model that the run starts from has to be downloaded, or is in the hub's cache."""
    return bool(cfg.model.path) and not os.path.isdir(cfg.model.path or "")


def local_input(name: str | None) -> list[str]:
    """Return a file or folder as an input of a rule; a data set on the hub is none."""
    return [name] if name and (is_file(name) or os.path.isdir(name)) else []


def model_files(path: str | None) -> list[str]:
    """Return the files of a model in a local folder as inputs, so that another model is noticed."""
    return sorted(glob.glob(f"{path}/*.*")) if path else []


def logp_files(paths: list[str]) -> list[str]:
    """Return existing log-prob files, and those in the folders among these paths, with their manifests, as inputs."""
    files = [file for path in paths for file in (glob.glob(f"{path}/*.pkl") if os.path.isdir(path) else [path])]
    passports = [str(manifest_of(file)) for file in files]
    return sorted({*files, *filter(os.path.exists, passports)})


def reward_files(cfg: Config, reward: str | None) -> list[str]:
    """Return the file of a user's own reward, or those of the model that computes the reward, as inputs."""
    if needs_model(reward):
        return model_files(cfg.reward_model)
    own = own_file(reward)
    return [own] if own else []


def part_files(cfg: Config, name: str) -> list[str]:
    """Return the files that the values of a part of a composed reward depend on, as inputs."""
    part = cfg.reward_parts[name]
    if is_trained_here(cfg, part):
        return [*part.files, Run(cfg).reward_model]
    return [*part.files, *model_files(part.model)]


class Freezing:
    """The frozen prompts of a run."""

    def __init__(self, cfg: Config, run: Run, wing: Wing, basedir: str, configfiles: list):
        self.cfg = cfg
        self.run = run
        self.wing = wing
        self.basedir = basedir
        self.configfiles = configfiles
        splits = {name: cfg.prompts.sources(name) for name in ("train", "pool", "eval")}
        self.splits = {name: sources for name, sources in splits.items() if sources}

    @property
    def frozen(self) -> list[str]:
        """The splits that are frozen from the config's sources."""
        return list(self.splits)

    @property
    def sharded(self) -> list[str]:
        """The splits with shards: the frozen ones, and the train prompts that a job makes from a pool."""
        return [*self.splits, *(["train"] if "pool" in self.splits else [])]

    @property
    def files(self) -> list[str]:
        """The files that prompts are read from."""
        return [source.file for sources in self.splits.values() for source in sources.values() if source.file]

    @property
    def job_inputs(self) -> list[str]:
        """The inputs of the job that freezes prompts."""
        return [file for file in [*self.files, *self.wing.prompt_files()] if not is_on_hub(file)]

    @property
    def is_early(self) -> bool:
        """True if prompts are frozen while the Snakefile is read, which needs all their files to be here already.

        Prompts that are made up, that have to be downloaded, or whose files a rule makes, are frozen by a job.
        """
        needs_job = any(is_on_hub(file) or self._is_made_here(file) for file in self.files)
        return bool(self.files) and not needs_job

    @property
    def stage(self) -> str:
        """The stage that freezes the prompts, as a module below workflow_scripts/."""
        return "screen_prompts" if self.cfg.prompts.screening else "freeze_prompts"

    def prepare(self, tells: bool = False) -> None:
        """Check the files that the config names, freeze prompts, and bring the shards' digests up to date.

        `tells` prints what part of the prompts a round answers.
        """
        self.check_files()
        if self._is_running():
            return

        try:
            if self.is_early:
                self._freeze()
            for split in self.sharded:
                self._sync(split)
        except BadInput as error:
            raise WorkflowError(str(error)) from None

        if tells and self.cfg.prompts_per_round:
            say(self._note_on_slices(self.cfg.prompts_per_round))

    def _note_on_slices(self, size: int) -> str:
        """Return what part of the prompts a round answers, as a line for people."""
        frozen = manifest_of(self.run.prompts("train"))
        if not frozen.exists():
            return f"prompts_per_round: each round answers {size:,} prompts"
        prompts = read_json(frozen)["rows"]
        rounds = rounds_per_pass(prompts, size)
        return f"prompts_per_round: each round answers {size:,} of {prompts:,} prompts; {rounds:,} rounds answer all"

    # ------------------------------------------------------------ checks

    def check_files(self) -> None:
        """Raise WorkflowError if a file that the config names, and that no rule makes or downloads, is missing."""
        missing = [
            f"{key}: there is no file {path}"
            for path, key in self._named_files().items()
            if not (self._is_made_here(path) or is_on_hub(path) or os.path.exists(path))
        ]
        if missing:
            raise WorkflowError("config: " + "; ".join(missing) + self._hint())

    def _named_files(self) -> dict[str, str]:
        """Return the files that the config names, with their keys."""
        cfg = self.cfg
        named: list[tuple[str, str | None]] = []
        for split, sources in self.splits.items():
            for name, source in sources.items():
                named.append((".".join(filter(None, ("prompts", split, name, "file"))), source.file))
        named.append(("cold_start.file", cfg.cold_start and cfg.cold_start.file))
        named.append(("data.source.file", cfg.data.source and cfg.data.source.file))
        named += [("evaluate.suites", suite.file) for suite in cfg.evaluate.suites]
        named += list(self.wing.named_files().items())

        for key, reward in {"reward": cfg.chosen_reward, **cfg.task_section.rewards()}.items():
            named.append((key, own_file(reward)))
        named.append(("train_reward_model.file", cfg.train_reward_model and cfg.train_reward_model.file))
        named += [(f"reward.{name}", file) for name, part in cfg.reward_parts.items() for file in part.files]
        for n, files in cfg.results.items():
            named += [(f"results.{n}", file) for file in (*files.auto, *files.trigger)]
        for n, files in cfg.meta.items():
            named += [(f"meta.{n}.auto", files.auto), (f"meta.{n}.trigger", files.trigger)]
        for n, rows in cfg.rows.items():
            named += [(f"rows.{n}.file", rows.file), *((f"rows.{n}.logp", file) for file in rows.logp)]

        return {path: key for key, path in named if path}

    def _hint(self) -> str:
        """Return where a recipe of this repository says what data it needs."""
        recipe = str(next(iter(self.configfiles), ""))
        is_shipped = f"{self.basedir}/recipes/" in os.path.abspath(recipe)
        return f" (see the head of {recipe})" if is_shipped else ""

    def _is_made_here(self, path: str) -> bool:
        return path.startswith(f"{self.run.folder}/")

    def _is_running(self) -> bool:
        """Return whether another Snakemake works on this run's prompts; then this one leaves them alone."""
        return is_locked(self.run.folder, f"{self.run.folder}/prompts")

    # ------------------------------------------------------------ freezing

    def _freeze(self) -> None:
        """Freeze prompts if their file, their settings or the code that reads them changed since the last time."""
        folder = Path(self.run.prompts("eval")).parent
        stamp = folder / ".stamp.json"
        sources = [*self.files, *filter(os.path.exists, self.wing.prompt_files())]
        settings = self.wing.settings("freeze_prompts")
        roots = ["workflow_scripts.freeze_prompts:freeze", tasks.root(self.cfg.task, "Prompts")]
        if self.cfg.prompts.screening:
            roots.append("workflow_scripts.screen_prompts:screen")
        code = code_identity(*roots)
        state = json.dumps(
            [
                settings_of(self.cfg.prompts.questions),
                settings,
                self.cfg.seed,
                code,
                [state_of(path) for path in sources],
            ]
        )
        paths = [self.run.prompts(split) for split in self.frozen]
        if stamp.exists() and stamp.read_text() == state and all(map(os.path.exists, paths)):
            return

        for path in filter(os.path.exists, paths):
            if file_digest(path) != read_json(manifest_of(path))["sha256"]:
                raise WorkflowError(
                    f"{path} was edited by hand, and what it was made from changed too ({', '.join(sources)}, "
                    f"`prompts`, `seed` or the code of task {self.cfg.task}): undo that, or delete {path}"
                )

        task = tasks.load(self.cfg.task, "Prompts", settings, self.wing.files("freeze_prompts"))
        grading = tasks.load(self.cfg.task, "Grading")
        stamp.unlink(missing_ok=True)  # a screening that refuses the prompts leaves them frozen, but not in use
        freeze_prompts.freeze(task, self.cfg.prompts.questions, self.cfg.seed, folder, grading)
        screen_prompts.screen(task, self.cfg.prompts, folder)
        stamp.write_text(state)

    def _sync(self, split: str) -> None:
        """Bring the digests of a split's shards up to date, with a check of prompts that were edited by hand."""
        path = self.run.prompts(split)
        if not os.path.exists(path):
            return

        task = tasks.load(self.cfg.task, "Prompts", self.wing.settings("freeze_prompts"))
        check = partial(self._check_edited, task, split)
        folder = Path(self.run.shard_digest(split)).parent
        slicing = self.run.slicing if split == "train" else None
        shards.sync(folder, self.cfg.shards.of_prompts, path, check, slicing)

    def _check_edited(self, task: Any, split: str, prompts: list[Any]) -> None:
        """Raise BadInput if frozen prompts were edited by hand into something that cannot be used."""
        path = self.run.prompts(split)
        eval_path = self.run.prompts("eval")
        freeze_prompts.check_edited(task, path, split, eval_path, prompts)
        if split in self.splits and split != "eval":
            screen_prompts.check_edited(task, self.cfg.prompts, path, eval_path, prompts)
