"""Parameters of rules: pieces of a stage's command line that its results depend on.

Snakemake compares the parameters of a job as a set, so each piece names itself (`--seed 0`). A stage's command contains
all of them as `{params}`. What only decides how a stage runs is not a parameter; `commands.py` adds it.
"""

import json
import re
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from workflow_scripts import engines, rewards, tasks
from workflow_scripts.config.layout import Run
from workflow_scripts.config.load import Config
from workflow_scripts.config.rewards import needs_model
from workflow_scripts.config.sections import settings_of
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.running import consent, plugins
from workflow_scripts.core.running.code import Table, table_digest
from workflow_scripts.tasks.defaults import Wing
from workflow_scripts.training import objectives
from workflow_scripts.workflow.known_code import KnownCode

Params = dict[str, Any]

# The parts of the task that the code of a stage uses (`tasks/__init__.py`).
PARTS = {
    "freeze_prompts": ("Prompts",),
    "screen_prompts": ("Prompts",),
    "init_model": ("ColdStart", "Conversation"),
    "construct_sft": ("ColdStart", "Conversation"),
    "generate": ("Conversation",),
    "import_results": ("Importer", "Conversation"),
    "grade": ("Grading",),
    "construct_meta": ("Selection",),
    "construct_data": ("Selection",),
    "import_data": ("Importer", "Conversation"),
    "import_meta": ("Importer", "Selection", "Conversation"),
    "evaluate": ("Evaluation",),
    "report": ("Evaluation",),
}

# The keys of `generate` that no result depends on.
ONLY_HOW = ("gpus", "tensor_parallel", "programs", "save_seconds", "keep_engine")


def flag(name: str, value: Any) -> str:
    """Return a command line option, such as `--seed 0`; nothing if the value is None or False."""
    option = f"--{name.replace('_', '-')}"

    if value is None or value is False:
        return ""
    if value is True:
        return option
    if isinstance(value, list | tuple):
        return " ".join([option, *(shlex.quote(str(item)) for item in value)]) if value else ""
    return f"{option} {shlex.quote(as_json(value) if isinstance(value, dict) else str(value))}"


def literal(piece: str) -> str | Callable[[Any], str]:
    """Return a piece of a command so that Snakemake takes it as it is.

    Snakemake would read a template in it, such as "{title}: {plot}", as wildcards; those that a function returns stay.
    """
    return (lambda wildcards: piece) if re.search(r"\{\w+\}", piece) else piece


def as_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


class StageCode:
    """The code behind each rule, as a parameter that changes when the code does (core/running/code.py)."""

    def __init__(self, run: Run):
        self.folder = Path(run.folder)
        self.known = KnownCode()
        self.tables: dict[str, Table] = {}  # by digest

    def param(self, rule: str, roots: Iterable[str]) -> Callable[[Any], str]:
        """Return the parameter `--code DIGEST` of a rule whose code starts at these roots."""
        table = self.known.table(roots)
        current = table_digest(table)
        self.tables[current] = table

        return lambda wildcards: flag(
            "code", consent.identity(self.folder, consent.job_name(rule, wildcards.items()), current)
        )


class ParamsOfRules:
    """Builds the parameters of rules from a config."""

    def __init__(self, cfg: Config, run: Run, wing: Wing):
        self.cfg = cfg
        self.run = run
        self.wing = wing
        self.code = StageCode(run)

    def stage(
        self,
        rule: str,
        module: str | None = None,
        parts: tuple[str, ...] | None = None,
        roots: Iterable[str] = (),
        **flags: Any,
    ) -> Params:
        """Return the parameters of a rule.

        Args:
            rule: the rule's name.
            module: the stage's module below workflow_scripts; by default it is named after the rule.
            parts: the parts of the task that the stage uses; by default those of the general stages.
            roots: further roots of its code.
            flags: options by name; a value may be a function of the wildcards.
        """
        module = module or rule
        parts = PARTS.get(module, ()) if parts is None else parts
        own_roots = [f"workflow_scripts.{module}:main", *(tasks.root(self.cfg.task, part) for part in parts), *roots]
        params: Params = {"code": self.code.param(rule, own_roots)}

        if parts:
            params |= self._task_params(rule)
        for name, value in flags.items():
            params[name] = _deferred(name, value) if callable(value) else literal(flag(name, value))

        return params

    def _task_params(self, rule: str) -> Params:
        settings = self.wing.settings(rule)
        files = self.wing.files(rule)
        params: Params = {
            "task": flag("task", self.cfg.task),
            "task_settings": literal(flag("task_settings", settings or None)),
        }

        for name, path in files.items():
            params[f"task_file_{name}"] = _file_flag(name, path)

        return params

    # ------------------------------------------------------------ values that several rules share

    def generation(self, version: str, eval_set: str = "") -> dict[str, Any]:
        """Return engine and sampling of one version only, so that changing another version reruns nothing here.

        `eval_set` is the set of eval questions that jobs of its own answer, if it is one.
        """
        generate = self.cfg.of_set(eval_set).generate
        settings = settings_of(generate, *ONLY_HOW, "engine", "auto", "trigger", "eval", "pool", "vllm", "openai")
        settings["engine"] = generate.engine_of(version)
        settings[version] = settings_of(getattr(generate, version), "engine")

        vllm = settings_of(generate.vllm, *generate.vllm.ONLY_HOW)
        if vllm and settings["engine"] == "vllm":
            settings["vllm"] = vllm
        if generate.is_remote(version) and generate.openai:
            settings["openai"] = settings_of(generate)["openai"]

        return settings

    def generate(self, rule: str, seed: str | Callable[[Any], str], version: str | None = None, **flags: Any) -> Params:
        """Return the parameters of a rule that generates answers. Without a version, the version is a wildcard."""

        def engine_root(wildcards) -> list[str]:
            return [engines.root(self.cfg.generate.engine_of(version or wildcards.version))]

        def code(wildcards) -> str:
            roots = [
                "workflow_scripts.generate:main", tasks.root(self.cfg.task, "Conversation"), *engine_root(wildcards)
            ]  # fmt: skip
            return self.code.param(rule, roots)(wildcards)

        params = self.stage(
            rule,
            module="generate",
            version=version or (lambda wildcards: wildcards.version),
            settings=lambda wildcards: self.generation(version or wildcards.version, set_of(wildcards)),
            template=self.cfg.full_template,
            seed=seed,
            sandbox=self.cfg.sandbox,
            **flags,
        )
        return params | {"code": code} | self._slice(rule) | self._sets(rule)

    def _sets(self, rule: str) -> Params:
        """Return which eval sets a job answers, if jobs of their own answer some of them, and the task's settings."""
        if rule != "generate_eval" or not self.cfg.prompts.sets_apart:
            return {}

        apart = self.cfg.prompts.sets_apart
        shared = [name for name in self.cfg.prompts.sources("eval") if name not in apart]

        def sets(wildcards) -> list[str]:
            name = set_of(wildcards)
            return [name] if name else shared

        return {"sets": _deferred("sets", sets), "task_settings": self._settings_of_set(rule)}

    def _settings_of_set(self, rule: str) -> Callable[[Any], str]:
        """Return the parameter with the task's settings, which depend on the eval set that a job works on."""
        wings = {name: type(self.wing)(self.cfg.of_set(name), self.run) for name in self.cfg.prompts.sets_apart}

        for name, source in self.cfg.prompts.sets_apart.items():
            stages = ("generate_eval", "grade")
            if source.settings and all(wings[name].settings(one) == self.wing.settings(one) for one in stages):
                keys = ", ".join(source.settings)
                raise BadInput(f"config: prompts.eval.{name}.settings: no answer and no grade depends on {keys}")

        def settings(wildcards) -> dict[str, Any] | None:
            return wings.get(set_of(wildcards), self.wing).settings(rule) or None

        return _deferred("task_settings", settings)

    def _slice(self, rule: str) -> Params:
        """Return which prompts a round answers, if it answers only a part of them.

        The rules that inherit from `generate` inherit this parameter too. They answer all prompts of their split.
        """
        slicing = self.run.slicing
        if slicing is None:
            return {}
        if rule != "generate":
            return {"slice": ""}
        return {"slice": _deferred("slice", lambda wildcards: {"round": int(wildcards.n), **slicing._asdict()})}

    def grade(self) -> Params:
        """Return the parameters of the rule that grades answers."""
        reward = self.cfg.chosen_reward
        roots = rewards.roots(reward)
        params = self.stage("grade", roots=roots, sandbox=self.cfg.sandbox, **self.reward("reward", reward))
        if self.cfg.prompts.sets_apart:
            params["task_settings"] = self._settings_of_set("grade")
        return params

    def reward_part(self) -> Params:
        """Return the parameters of the rule that computes a part of a composed reward. Its weight is none of them."""
        parts = self.cfg.reward_parts

        def code(wildcards) -> str:
            name = parts[wildcards.part].reward
            own = [tasks.root(name, "Grading")] if name in plugins.names("tasks") else rewards.roots(name)
            return self.code.param("reward", ["workflow_scripts.reward:main", *own])(wildcards)

        params = self.stage(
            "reward",
            name=lambda wildcards: wildcards.part,
            part=lambda wildcards: settings_of(parts[wildcards.part], "name", "weight"),
            sandbox=self.cfg.sandbox,
            task=self.cfg.task,
        )
        return params | {"code": code}

    def combine_rewards(self) -> Params:
        """Return the parameters of the rule that adds up the parts of a reward."""
        weights = {name: part.weight for name, part in self.cfg.reward_parts.items()}
        return self.stage("combine_rewards", weights=weights)

    def construct_data(self) -> Params:
        """Return the parameters of the rule that selects a round's training data."""
        params = self.stage(
            "construct_data",
            settings=settings_of(self.cfg.data),
            seed=self.cfg.seed,
            auto=lambda wildcards: self.run.metas(wildcards.n).get("auto"),
            trigger=lambda wildcards: self.run.metas(wildcards.n).get("trigger"),
        )
        if self.cfg.data.replay:
            params["settings"] = self._data_settings
        return params

    def _data_settings(self, wildcards) -> str:
        """Return the settings of a round's data and the files of the rounds whose rows it trains on again, as options.

        They are one parameter, so that a round that replays nothing has the same parameters as without `data.replay`.
        """
        left_out = () if self.run.replayed_rounds(wildcards.n) else ("replay",)
        settings = flag("settings", settings_of(self.cfg.data, *left_out))
        data = []
        logps = []
        for k in self.run.replayed_rounds(wildcards.n):
            data.append(f"{k}={self.run.data(k)}")
            logps += [f"{k}={path}" for path in self.run.logps(k, k - 1)]
        return " ".join(filter(None, [settings, flag("replay", data), flag("replay_logp", logps)]))

    def rows_of_round(self, wildcards) -> dict[str, Any]:
        """Return the settings of the stage that reads the existing rows of one round."""
        return settings_of(self.cfg.data) | {"source": settings_of(self.cfg.rows[int(wildcards.n)], "logp")}

    def rows(self, rule: str, module: str | None = None, **flags: Any) -> Params:
        """Return the parameters of a stage that reads existing rows, with how they are screened, if they are."""
        if not self.cfg.screens_rows:
            return self.stage(rule, module=module, **flags)

        assert self.cfg.prompts.screening
        screening = settings_of(self.cfg.prompts.screening, include={"contamination", "ngram", "coverage"})
        roots = [tasks.root(self.cfg.task, "Prompts")]
        return self.stage(rule, module=module, roots=roots, screening=screening, **flags)

    def train(self, rule: str, section: Any, **flags: Any) -> Params:
        """Return the parameters of a training rule."""
        roots = [objectives.root(section.objective)]
        return self.stage(rule, module="train", roots=roots, settings=settings_of(section, "engine_weights"), **flags)

    def stored_logps(self, wildcards) -> str:
        """Return the stored log-probs that a round's training needs, as options."""
        n = int(wildcards.n)
        options = []

        for name, under in self.run.compared_checkpoints(n).items():
            options.append(flag(name, self.run.logps(n, under)))
            if name == "ref_logp":
                options.append(flag("reference", self.run.checkpoint(under)))
        if answers := self.run.compared_answers(n):
            options.append(flag("answers", answers))

        return " ".join(options)

    def logp(self, rule: str, module: str = "logp", **flags: Any) -> Params:
        """Return the parameters of a rule that scores data, with how the answers were sampled, for the passport.

        Ratios need the distribution that the answers were sampled from. An objective without ratios, such as dpo,
        compares the model's own distributions, at temperature 1. So do existing rows, whose sampling is unknown.
        """
        auto = self.cfg.generate.auto
        sampling = {"temperature": auto.temperature, "top_p": auto.top_p, "top_k": auto.top_k}
        if self.cfg.data.source or not self.cfg.train.needs_behaviour:
            sampling = {}

        return self.stage(
            rule,
            module=module,
            settings=settings_of(self.cfg.logp, "gpus"),
            ledger=lambda wildcards: self.run.ledger(f"{rule}/r{wildcards.n}"),
            **sampling,
            **flags,
        )

    def publish(self) -> Params:
        """Return the parameters of the rule that publishes a round."""
        return {
            "run": flag("run", self.run.folder),
            "task": flag("task", self.cfg.task),
            "settings": literal(flag("settings", settings_of(self.cfg.publish))),
            "data": lambda wildcards: flag("data", self.run.trained_on(int(wildcards.n))),
        }

    def reward(self, name: str, reward: str | None) -> Params:
        """Return a reward as an option of this name, with the model that computes it."""
        return {name: reward, "reward_model": self.cfg.reward_model if needs_model(reward) else None}


def set_of(wildcards: Any) -> str:
    """Return the eval set that a job works on, if jobs of its own answer it; "" for all other jobs."""
    place = getattr(wildcards, "place_of_set", "")
    if match := re.fullmatch(r"evaluation/r\d+(/.+)", getattr(wildcards, "place", "")):
        place = match[1]
    return place.removeprefix("/")


def _deferred(name: str, value: Callable[[Any], Any]) -> Callable[[Any], str]:
    return lambda wildcards: flag(name, value(wildcards))


def _file_flag(name: str, path: str) -> str | Callable[[Any], str]:
    """Return the option of a task's file; its path may contain wildcards."""
    if "{" not in path:
        return flag("task_file", f"{name}={path}")
    return lambda wildcards: flag("task_file", f"{name}={path.format(**dict(wildcards.items()))}")
