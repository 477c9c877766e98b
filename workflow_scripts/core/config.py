"""The whole config: its sections, and what must hold between them.

All keys that are wrong are said at once, one line each with its path and a hint (`ConfigError`); what must hold between
sections is looked at once they are right, and the first fault is said.
"""

import difflib
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)

from workflow_scripts.core.dialogue_sections import Recommend
from workflow_scripts.core.rewards import needs_model
from workflow_scripts.core.sections import (
    ColdStart,
    Data,
    Generate,
    Judge,
    Logp,
    Model,
    Name,
    Prompts,
    Results,
    Reward,
    Section,
    Selection,
    Train,
    Wandb,
)
from workflow_scripts.core.table_sections import Tabular

# YAML reads a bare `off` as False
OnOff = Annotated[Literal["on", "off"], BeforeValidator(lambda v: {True: "on", False: "off"}.get(v, v))]
TASKS = Path(__file__).resolve().parents[1] / "tasks"


def _known_task(name: str) -> str:
    tasks = sorted(path.stem for path in TASKS.glob("*.py") if path.stem != "__init__")
    if name not in tasks:
        raise ValueError(f"there is no such task; tasks are: {', '.join(tasks)}")
    return name


class ConfigError(Exception):
    """What is wrong with a config, one line each."""


class Config(Section):
    name: Name
    task: Annotated[Name, AfterValidator(_known_task)]
    expname: Name | None = None  # the model's tag in file names; the run's name by default
    rounds: NonNegativeInt = 3
    seed: NonNegativeInt = 0
    shards: PositiveInt = 2
    template: Literal["deepseek", "alpaca", "chat"] = "deepseek"
    sandbox: OnOff = "on"
    reward: Reward | None = None  # task reference: how answers are rewarded
    reward_model: str | None = None  # for rm and bleu_rm a reward model, for bertscore an encoder
    judge: Judge | None = None  # task reference: compares a round's eval answers with the round before's
    tabular: Tabular | None = None  # task tabular: it makes the prompts and the cold start
    prompts: Prompts
    selection: Selection | None = None
    recommend: Recommend | None = None  # task recommend: its dialogues
    model: Model
    cold_start: ColdStart | None = None
    generate: Generate = Generate()
    # the Python of generate's environment, where an engine needs its own
    python: dict[Literal["vllm"], str] = Field(default_factory=dict)
    results: dict[PositiveInt, Results] = Field(default_factory=dict)
    data: Data = Data()
    logp: Logp = Logp()
    train: Train = Train()
    wandb: Wandb = Wandb()

    @model_validator(mode="before")
    @classmethod
    def made_of_tables(cls, values):
        """With `tabular`, prompts and cold start are the files that gen_synsft makes of its tables."""
        given = values.get("tabular") if isinstance(values, dict) else None
        if not isinstance(given, dict):
            if isinstance(values, dict) and values.get("task") == "tabular":
                raise ValueError("task tabular needs a section `tabular`, with its data sets")
            return values
        folder = f"runs/{values.get('name')}/syn_datasets/sft_syn_{given.get('dataset')}"
        prompts, cold = values.get("prompts") or {}, values.get("cold_start") or {}
        splits = {name: prompts.get(name) or {} for name in ("train", "eval")} if isinstance(prompts, dict) else {}
        if not all(isinstance(section, dict) for section in (prompts, cold, *splits.values())):
            return values  # their own sections say what is wrong
        splits = {name: {"file": f"{folder}/{name}.jsonl"} | split for name, split in splits.items()}
        made = {"prompts": prompts | splits}
        if cold:
            made["cold_start"] = ({} if cold.get("count") else {"file": f"{folder}/alpaca_train.json"}) | cold
        return values | made

    @model_validator(mode="after")
    def tables_have_their_task(self):
        if self.tabular and self.task != "tabular":
            raise ValueError(f"`tabular` belongs to the task tabular, not to {self.task}")
        if self.tabular and self.train.objective != "dpo":
            raise ValueError(f"train.objective {self.train.objective}: task tabular makes preference pairs: dpo")
        if self.tabular and self.data.data_filter != "none":
            raise ValueError(f"data.data_filter {self.data.data_filter}: pairs of task tabular need bad rows too: none")
        if self.tabular and (self.generate.trigger or self.results):
            raise ValueError(
                "task tabular asks in one way alone and its answers need scores: trigger: null, no results"
            )
        return self

    @model_validator(mode="after")
    def engines_can_answer(self):
        for version, what in (("eval", "evaluation"), ("pool", "selection")):
            if self.generate.engine_of(version) == "openai" and (version == "eval" or self.selection):
                raise ValueError(
                    f"generate.{version}.engine: {what} is of the checkpoint, which the engine openai does not ask; "
                    "set it to transformers or vllm"
                )
        for version in ("auto", "trigger"):
            if self.generate.engine_of(version) == "openai" and getattr(self.generate, version):
                if not self.generate.openai:
                    raise ValueError("generate.openai: the engine openai needs `base_url` and `model`")
                if getattr(self.generate, version).top_k:
                    raise ValueError(f"generate.{version}.top_k: the OpenAI protocol has none; set it to 0")
        return self

    @model_validator(mode="after")
    def rewards_have_models(self):
        for key, name in (("reward", self.reward), ("selection.metric", self.selection and self.selection.metric)):
            if needs_model(name) and not self.reward_model:
                raise ValueError(f"reward_model: {key} {name} is given by a model; name its folder, or it on the hub")
        return self

    @model_validator(mode="after")
    def copies_fit(self):
        gpus, split = self.generate.gpus, self.generate.tensor_parallel
        if split and gpus and gpus % split:
            raise ValueError(f"generate.gpus {gpus} is no multiple of generate.tensor_parallel {split}")
        return self

    @model_validator(mode="after")
    def dialogues(self):
        if (self.task == "recommend") != bool(self.recommend):
            raise ValueError("the task recommend and the section `recommend` belong together")
        if not self.recommend:
            return self
        if self.selection or self.generate.trigger:
            raise ValueError("the task recommend has no `selection` and no triggers: set generate.trigger to null")
        if self.generate.engine_of("auto") == "openai":
            raise ValueError(
                "generate.auto.engine: in dialogues the policy itself answers; a teacher has its part in "
                "`recommend.explore`: set it to transformers or vllm"
            )
        if self.cold_start and self.cold_start.explored and not self.recommend.explore:
            raise ValueError("cold_start.explored needs `recommend.explore`: the teacher's dialogues")
        return self

    @model_validator(mode="after")
    def consistent(self):
        kinds = {
            "prompts.train": self.prompts.train,
            "prompts.pool": self.prompts.pool,
            "data.source": self.data.source,
        }
        if sum(map(bool, kinds.values())) != 1:
            found = " and ".join(name for name, given in kinds.items() if given) or "none"
            raise ValueError(
                "give one of `prompts.train`, for answers to learn from, `prompts.pool`, to select them from, and "
                f"`data.source`, for rows that exist; found {found}"
            )
        explore = self.recommend and self.recommend.explore
        if self.judge and self.task != "reference":
            raise ValueError(f"judge: it compares answers in words; task {self.task} counts right ones")
        if self.selection and self.task != "reference":
            raise ValueError(f"selection: answers are scored by references; task {self.task} has none")
        if bool(self.prompts.pool) != bool(self.selection or explore):
            raise ValueError(
                "`prompts.pool` and `selection` belong together: the train prompts are selected from the pool "
                "(with the task recommend, `prompts.pool` and `recommend.explore`: the teacher explores it)"
            )
        if self.data.source and self.results:
            raise ValueError("`results` stand in for a round's own answers, and with `data.source` there are none")
        preference = bool(self.tabular or (self.data.source and self.data.source.format == "preference"))
        if (self.train.objective == "dpo") != preference:
            raise ValueError(
                "train.objective dpo and data.source.format preference belong together: dpo learns from pairs alone "
                "(`tabular` makes its own), and other objectives would learn from the rejected answers too"
            )
        if (self.train.needs_behaviour or self.train.needs_reference) and self.logp.dtype != self.train.dtype:
            raise ValueError(
                f"logp.dtype {self.logp.dtype} and train.dtype {self.train.dtype}: stored log-probs are compared with "
                "training's own, so both need one arithmetic"
            )
        if self.model.scratch and not self.cold_start:
            raise ValueError("a model from `scratch` knows nothing: it needs a `cold_start` section")
        return self

    @model_validator(mode="after")
    def sampled_for_training(self):
        """Answers that are learnt from are drawn from the distribution that log-probs are of."""
        sampling, trigger = self.generate.auto, self.generate.trigger
        if self.data.source:
            return self  # nothing is sampled
        if sampling.temperature == 0:
            raise ValueError("generate.auto.temperature: 0 is greedy; a round learns from samples")
        for name, one in (("auto", sampling), ("trigger", trigger)):
            if one and self.train.needs_behaviour and (one.top_p < 1 or one.top_k):
                raise ValueError(
                    f"train.objective {self.train.objective} takes ratios of the full distribution, so generate.{name} "
                    f"must sample from it: top_p 1 and top_k 0, found {one.top_p} and {one.top_k}"
                )
        if trigger and trigger.temperature != self.generate.auto.temperature:
            raise ValueError("generate.auto and generate.trigger need one temperature: log-probs are of logits / T")
        return self


def settings_help(section: str) -> str:
    """The keys of a config section with their defaults, for a script's --help."""
    fields = _section_in(Config.model_fields[section].annotation).model_fields
    keys = [name if field.is_required() else f"{name} {field.default!s}" for name, field in fields.items()]
    return f"the config's `{section}` section as JSON: {', '.join(keys)}".replace("%", "%%")


def load(config: dict) -> Config:
    """Validate a whole config; all wrong keys at once."""
    config = _with_nulls(config)
    try:
        return Config.model_validate(config)
    except ValidationError as error:
        lines = [_line(fault, config) for fault in error.errors(include_url=False)]
        raise ConfigError("\n".join(f"config: {line}" for line in lines)) from None


def _with_nulls(value):
    """Snakemake's `--config` leaves the leaves of a mapping as text; a text "null" is meant as none."""
    if isinstance(value, dict):
        return {key: _with_nulls(one) for key, one in value.items()}
    return None if value == "null" else value


def _line(fault: dict, config: dict) -> str:
    path = ".".join(map(str, fault["loc"]))
    if fault["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(fault["loc"][-1]), _keys_beside(fault["loc"]), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(_keys_beside(fault['loc']))}"
        return f"{path}: there is no such key; {hint}"
    if fault["type"] == "missing":
        return f"{path}: this key is needed"
    message = fault["msg"].removeprefix("Value error, ")
    found = fault.get("input")
    shown = "" if isinstance(found, (dict, list)) else f", found {found!r}"
    return f"{path}: {message}{shown}" if path else f"{message}{shown}"


def _keys_beside(location: tuple) -> list[str]:
    """The keys that would have been right where an unknown one stands."""
    section: type[Section] | None = Config
    for part in location[:-1]:
        if section is not None and part in section.model_fields:
            section = _section_in(section.model_fields[part].annotation)
        # else a key of a mapping, such as a round's number: its values' section was found one step before
    return sorted(section.model_fields) if section else []


def _section_in(annotation) -> type[Section] | None:
    """The settings model that an annotation such as `dict[int, Results] | None` speaks of."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next(filter(None, map(_section_in, get_args(annotation))), None)
