"""The general sections of the config: one model per section, with types, defaults and meanings.

Stages receive their section as JSON (`--settings`) and validate it with the same models. Keys that are left at their
neutral value are not passed on (`settings_of`), so a new key with a neutral default reruns nothing.
"""

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Tag,
    model_validator,
)

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.running import plugins

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Share = Annotated[float, Field(ge=0, le=1)]
Dtype = Literal["float32", "bfloat16"]


class Section(BaseModel):
    """A section of the config. Unknown keys, NaN and infinity are errors.

    A field whose default changes keeps its first default as `Field(new, json_schema_extra={"neutral": old})`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def settings_of(section: BaseModel, *left_out: str, include: set[str] | None = None) -> dict[str, Any]:
    """Return the values of a section as JSON, without the keys that have their neutral value.

    The neutral value of a key is its first default: results made before the key existed count as made with it. Limits,
    prices and budgets of endpoints are left out too, since no result depends on them.
    """
    values = {}

    for name, field in type(section).model_fields.items():
        if name in left_out or (include is not None and name not in include):
            continue

        value = getattr(section, name)
        neutral = field.get_default(call_default_factory=True)
        if isinstance(field.json_schema_extra, dict) and "neutral" in field.json_schema_extra:
            neutral = field.json_schema_extra["neutral"]

        if value != neutral or field.is_required():
            values[name] = _as_json(value)

    return values


def _as_json(value: Any) -> Any:
    if isinstance(value, Endpoint):
        return {name: getattr(value, name) for name in IDENTIFIES_ENDPOINT}
    if isinstance(value, BaseModel):
        return settings_of(value)
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    return value


def endpoints_of(value: Any) -> dict[str, Any]:
    """Return how the endpoints within a section are called, nested as the section is: limits, prices, budgets, keys."""
    if isinstance(value, Endpoint):
        return value.model_dump(mode="json", exclude=set(IDENTIFIES_ENDPOINT))
    if not isinstance(value, BaseModel):
        return {}

    nested = {name: endpoints_of(getattr(value, name)) for name in type(value).model_fields}
    return {name: inner for name, inner in nested.items() if inner}


def exactly_one(**options: Any) -> None:
    """Raise ValueError unless exactly one of the options has a value."""
    present = [name for name, value in options.items() if value is not None]

    if len(present) != 1:
        state = "both are given: set one to null" if present else "neither is given"
        raise ValueError(f"give either {' or '.join(f'`{name}`' for name in options)}; {state}")


def _plugin(folder: str):
    """Return a validator of names that a folder of workflow_scripts/ offers."""

    def check(name: str) -> str:
        try:
            return plugins.check_name(folder, name)
        except BadInput as error:
            raise ValueError(str(error)) from None

    return AfterValidator(check)


def _check_reward(name: str) -> str:
    if name not in plugins.names("rewards") and not re.fullmatch(r".+\.py:\w+", name):
        raise ValueError(f"there is no such reward; choose {', '.join(plugins.names('rewards'))}, or FILE.py:FUNCTION")

    return name


TaskName = Annotated[Name, _plugin("tasks")]
Engine = Annotated[str, _plugin("engines")]
Objective = Annotated[str, _plugin("training/objectives")]
Reward = Annotated[str, AfterValidator(_check_reward)]


# ---------------------------------------------------------------- prompts and model


class Split(Section):
    """The source of a set of prompts: a file or data set, or `count` questions that the task makes up.

    If a record lacks the default keys, the task looks for the columns of the data sets that it knows.
    """

    file: str | None = None  # .jsonl, .json, .csv or .parquet; a folder of `datasets`; a name on the Hugging Face hub
    count: dict[str, NonNegativeInt] | None = None  # level → number of questions
    limit: PositiveInt | None = None  # use only the first so many records of the file
    question_key: str = "question"  # the key of the question in a record
    answer_key: str = "answer"  # the key of the reference in a record
    subset: str | None = None  # the configuration of a data set that has several, such as main of openai/gsm8k
    split: str = "train"  # the split of a data set that has several
    revision: str | None = None  # of a data set on the hub: a commit, so that the prompts stay the same

    @model_validator(mode="after")
    def has_one_source(self):
        exactly_one(file=self.file, count=self.count)
        if self.count:
            for name in sorted(self.model_fields_set - {"file", "count"}):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"`{name}` belongs to a `file`, and made-up questions come from `count`")
        return self


EVAL_TAGS = ("<one set>", "<several sets>")  # parts of the paths of faults, which are not shown


def _eval_tag(value: Any) -> str:
    """Return whether the value of `prompts.eval` is one set of questions, or a mapping of names to sets."""
    is_mapping = isinstance(value, dict) and bool(value) and not value.keys() & Split.model_fields.keys()
    has_sets = is_mapping and all(isinstance(item, dict | Split) for item in value.values())
    return EVAL_TAGS[1] if has_sets else EVAL_TAGS[0]


EvalSets = Annotated[
    Annotated[Split, Tag(EVAL_TAGS[0])] | Annotated[dict[Name, Split], Tag(EVAL_TAGS[1])], Discriminator(_eval_tag)
]


class Prompts(Section):
    """The questions of an experiment, frozen once."""

    eval: EvalSets | None = None  # what metrics are computed on: a set of questions, or several by name
    train: Split | None = None  # the questions of the rounds; none if data.source holds the rows to train on
    pool: Split | None = None  # in place of train: prompts that the task selects or makes the train prompts from

    @model_validator(mode="before")
    @classmethod
    def has_keys_by_split(cls, values: Any) -> Any:
        moved = {"question_key", "answer_key"} & values.keys() if isinstance(values, dict) else set()
        if moved:
            name = max(moved)
            raise ValueError(
                f"each split has its own `{name}`: move it into the splits, as in `train: {{file: …, {name}: "
                f"{values[name]}}}`"
            )
        return values

    def sources(self, split: str) -> dict[str, Split]:
        """Return the sources of a split (train, pool or eval) by the name of their set; "" if there is one set only."""
        value = getattr(self, split)
        if value is None:
            return {}
        return value if isinstance(value, dict) else {"": value}


class Scratch(Section):
    """A Llama made in place, with a byte-level BPE tokenizer trained on the texts of the cold start."""

    layers: PositiveInt = 3  # transformer blocks
    width: PositiveInt = 128  # of the hidden states
    heads: PositiveInt = 4  # attention heads
    mlp_width: PositiveInt = 384  # of the feed-forward layers
    vocabulary: PositiveInt = 384  # tokens
    context: PositiveInt = 2048  # tokens
    init_std: PositiveFloat = 0.06  # standard deviation of the random weights

    @model_validator(mode="after")
    def is_possible(self):
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} is not an even multiple of heads {self.heads}")
        if self.vocabulary < 258:
            raise ValueError(f"vocabulary {self.vocabulary}: at least 258, for 256 bytes and two special tokens")
        return self


class Model(Section):
    """The model that round 0 starts from: an existing one, or one made from scratch."""

    path: str | None = None  # a folder, or a name on the Hugging Face hub
    revision: str | None = None  # a commit of a model on the hub
    parameters: PositiveFloat | None = None  # such as 7e9, for a model on the hub: sizes the requests to a cluster
    scratch: Scratch | None = None

    @model_validator(mode="after")
    def has_one_source(self):
        exactly_one(path=self.path, scratch=self.scratch)
        return self


# ---------------------------------------------------------------- training


class DeepSpeed(Section):
    """ZeRO, for models that do not fit into one process."""

    ENVIRONMENT: ClassVar = "deepspeed"  # envs/deepspeed.yaml
    PACKAGES: ClassVar = ("deepspeed",)
    PROGRAMS: ClassVar = ("c++",)  # it compiles an extension when it starts

    stage: Annotated[int, Field(ge=0, le=3)] = 2
    offload: bool = False  # keep the optimizer (and, in stage 3, the weights) in the CPU's memory


class Lora(Section):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685). They are merged into the weights that are published."""

    ENVIRONMENT_OF_BITS: ClassVar = "qlora"  # envs/qlora.yaml
    PACKAGES: ClassVar = ("peft",)
    PACKAGES_OF_BITS: ClassVar = ("bitsandbytes",)

    r: PositiveInt = 64  # rank
    alpha: PositiveFloat = 16.0  # adapters are scaled by alpha / r
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0  # before the adapters; only for sft, ratios would be noisy
    targets: list[str] = Field(["q_proj", "v_proj"], min_length=1)  # names of linear layers
    bits: Literal[4] | None = None  # 4: hold the frozen weights in nf4 (QLoRA, arXiv 2305.14314); only for sft


class Train(Section):
    """One training stage. Token counts are per process, sequences per update are counted over all processes."""

    objective: Objective = "clip"
    lr: PositiveFloat = 1e-6
    schedule: Literal["constant", "cosine", "linear", "cosine_min"] = "constant"  # cosine_min ends at a tenth of lr
    schedule_over: Literal["round", "rounds"] = "round"  # one schedule per round, or one over all rounds of the config
    warmup: Share = 0.03  # share of the updates
    optimizer: Literal["fresh", "carry"] = "fresh"  # AdamW's moments: reset in each round, or carried on
    weight_decay: NonNegativeFloat = 0.0
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    adam_eps: PositiveFloat = 1e-8  # a larger value turns vanishing gradients into vanishing updates instead of drift
    grad_norm: PositiveFloat = 1.0  # gradients are clipped to this norm
    epochs: PositiveInt = 1
    batch_size: PositiveInt = 64  # rows per update (pairs, for objectives on pairs)
    updates_per_round: PositiveInt | None = None  # divide the data among so many updates, in place of batch_size
    tokens_per_bin: PositiveInt = 8192  # tokens in one forward pass
    max_length: PositiveInt = 2048  # longer rows are rejected, never cut
    clip_low: PositiveFloat = 0.2  # clip: ratios outside 1 - clip_low … 1 + clip_high gain nothing more
    clip_high: PositiveFloat = 0.2
    ratio_cap: PositiveFloat = 1.2  # ips: ratios are clipped above at this value
    kl: NonNegativeFloat = 0.0  # weight of clip's KL term to the reference, or of the likelihood term of ips
    dpo_beta: PositiveFloat = 0.1  # dpo: scale of the preference margin
    nll_weight: NonNegativeFloat = 1.0  # dpo: weight of the chosen answers' likelihood
    reference: Literal["round0", "previous"] = "round0"  # the model that kl (clip) and dpo compare with
    foreign_ratio: Literal["one", "proximal"] = "one"  # ratio of foreign rows: 1, or against the round's start
    min_ess: Share = 0.0  # stop when the ratios' effective sample size falls below this share
    dtype: Dtype = "float32"  # of the arithmetic; weights are float32
    gradient_checkpointing: bool = False  # less memory for a third more work
    lora: Lora | None = None  # null: all weights are trained
    deepspeed: DeepSpeed | None = None
    processes: PositiveInt = 1  # on each node, started by torchrun, one per GPU
    nodes: PositiveInt = 1  # of a Slurm job; more than one needs Slurm
    save_steps: PositiveInt = 100  # updates between two saved states
    threads: PositiveInt = 2  # CPU threads per process; equal threads give equal bits

    @model_validator(mode="after")
    def is_possible(self):
        if self.schedule_over == "rounds" and self.updates_per_round is None:
            raise ValueError("schedule_over: rounds needs updates_per_round, so that the end is known at the start")
        if self.kl and not self.uses("KL"):
            raise ValueError(f"kl: objective {self.objective} has no such term")
        if self.min_ess and not self.needs_behaviour:
            raise ValueError(f"min_ess: objective {self.objective} takes no ratios")
        if self.lora and self.lora.dropout and self.objective != "sft":
            raise ValueError(f"lora.dropout: objective {self.objective} compares log-probs; they would be noisy; use 0")
        if self.lora and self.lora.bits and self.objective != "sft":
            raise ValueError(f"lora.bits: objective {self.objective} compares log-probs, which 4 bits change; use null")
        if self.lora and (self.deepspeed or self.optimizer == "carry"):
            raise ValueError("lora needs optimizer: fresh and no deepspeed, because each round trains new adapters")
        if self.optimizer == "carry" and self.deepspeed:
            raise ValueError(
                "optimizer: carry does not work with deepspeed, which keeps the moments in parts; use fresh"
            )
        return self

    def updates(self, units: int) -> int:
        """Return how many updates the stage makes on so many rows (or pairs)."""
        return self.updates_per_round or self.epochs * -(-units // self.batch_size)

    def uses(self, constant: str) -> Any:
        """Return a constant that the objective declares: UNIT, NEEDS, or KL."""
        return plugins.constants("training/objectives", self.objective).get(constant)

    @property
    def environment(self) -> str:
        """The name of the Python environment that this training needs."""
        if self.deepspeed:
            return self.deepspeed.ENVIRONMENT
        if self.lora and self.lora.bits:
            return self.lora.ENVIRONMENT_OF_BITS
        return "roundhouse"

    @property
    def packages(self) -> tuple[str, ...]:
        """The Python packages, by the names of their imports, that only trainings like this one need."""
        packages: tuple[str, ...] = ()
        if self.deepspeed:
            packages += self.deepspeed.PACKAGES
        if self.lora:
            packages += self.lora.PACKAGES + (self.lora.PACKAGES_OF_BITS if self.lora.bits else ())
        return packages

    @property
    def programs(self) -> tuple[str, ...]:
        """The programs that only trainings like this one need."""
        return self.deepspeed.PROGRAMS if self.deepspeed else ()

    @property
    def unit(self) -> str:
        """The unit that the loss is averaged over: tokens, rows or pairs."""
        return self.uses("UNIT")

    @property
    def needs_behaviour(self) -> bool:
        """True if the objective uses the log-probs under the policy that sampled the rows."""
        return "behaviour" in self.uses("NEEDS")

    @property
    def needs_reference(self) -> bool:
        """True if the objective uses the log-probs under the reference."""
        return "reference" in self.uses("NEEDS") or (self.kl > 0 and self.uses("KL") == "reference")


class ColdStartTrain(Train):
    """The supervised stage before the rounds."""

    # Always passed on, since the stage reads this section as a Train section, whose default is another objective.
    objective: Literal["sft"] = Field(default="sft", json_schema_extra={"neutral": None})  # type: ignore[assignment]
    schedule_over: Literal["round"] = "round"  # type: ignore[assignment]
    optimizer: Literal["fresh"] = "fresh"  # type: ignore[assignment]


class Worked(Section):
    """Numbers of worked examples of a level: those that answer directly, and those that write a program."""

    direct: NonNegativeInt
    code: NonNegativeInt


class ColdStart(Section):
    """Supervised training that makes round0_checkpoint."""

    file: str | None = None  # rows with question and solution, or in the format sft (core/formats.py)
    count: dict[str, Worked | NonNegativeInt] | None = None  # level → worked examples that the task makes up
    question_key: str = "question"  # the key of the question in a row
    solution_key: str = "solution"  # the key of the worked solution in a row
    subset: str | None = None  # the configuration of a data set that has several
    split: str = "train"  # the split of a data set that has several
    revision: str | None = None  # of a data set on the hub: a commit, so that the rows stay the same
    limit: PositiveInt | None = None  # use only the first so many records of the file
    train: ColdStartTrain = ColdStartTrain()

    @model_validator(mode="after")
    def has_one_source(self):
        exactly_one(file=self.file, count=self.count)
        return self


# ---------------------------------------------------------------- jobs


class Shards(Section):
    """The jobs of a record stage and round, by what they work on. A number stands for `{auto: number}`."""

    auto: PositiveInt  # the answers of a round in auto mode; also what is left at null below
    trigger: PositiveInt | None = None  # its triggered answers
    eval: PositiveInt | None = None  # the answers to the eval questions
    pool: PositiveInt | None = None  # the answers to the pool
    logp: PositiveInt | None = None  # the log-probs of the training data

    @model_validator(mode="before")
    @classmethod
    def from_number(cls, value: Any) -> Any:
        if isinstance(value, dict | cls):
            return value
        if isinstance(value, int) and value >= 1:
            return {"auto": value}
        raise ValueError("give a positive number of jobs, or numbers by what they work on, such as {auto: 64, eval: 1}")

    def of(self, stage: str) -> int:
        """Return the number of shards of a stage: auto, trigger, eval, pool or logp."""
        return getattr(self, stage) or self.auto

    @property
    def of_prompts(self) -> list[int]:
        """The numbers of shards that prompts are divided into, from the largest to the smallest."""
        return sorted({self.of(stage) for stage in ("auto", "trigger", "eval", "pool")}, reverse=True)


# ---------------------------------------------------------------- generation


class Sampling(Section):
    """Sampling settings of one version of answers."""

    engine: Engine | None = None  # in place of generate.engine
    samples: PositiveInt = 8  # answers per prompt (per trigger, in trigger mode)
    temperature: NonNegativeFloat = 1.0  # 0 is greedy
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: NonNegativeInt = 0  # 0 is off
    max_tokens: PositiveInt = 1024  # sampled tokens per answer, over all turns
    turns: PositiveInt = 5  # model turns per answer; the environment answers between them
    reply_tokens: PositiveInt | None = None  # the most tokens of an environment's reply; longer ones lose their middle


class Prices(Section):
    """Prices of a million tokens, in any currency."""

    input: NonNegativeFloat
    cached: NonNegativeFloat
    output: NonNegativeFloat


class Endpoint(Section):
    """An OpenAI-compatible endpoint. Results depend on `base_url` and `model` only, so only they rerun anything."""

    base_url: str
    model: str
    key_env: str | None = "OPENAI_API_KEY"  # the environment variable that holds the key; null: no key is needed
    concurrency: PositiveInt = 16  # requests in flight
    requests_per_minute: PositiveFloat | None = None
    tokens_per_minute: PositiveFloat | None = None  # prompts are estimated, max_tokens count in full, as on servers
    timeout: PositiveFloat = 120.0  # seconds per request
    prices: Prices = Prices(input=0, cached=0, output=0)
    budget: PositiveFloat | None = None  # of the whole run, in the prices' currency; the stage stops when it is reached

    @model_validator(mode="after")
    def has_prices_for_budget(self):
        if self.budget is not None and not (self.prices.input or self.prices.output):
            raise ValueError("a budget needs `prices: {input: …, cached: …, output: …}` per million tokens")
        return self


IDENTIFIES_ENDPOINT = ("base_url", "model")


class Judge(Section):
    """A model that says which of two answers is better."""

    openai: Endpoint
    temperature: NonNegativeFloat = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_tokens: PositiveInt = 16


class Generate(Section):
    """Settings of generation: the engines, and the sampling of each version of answers."""

    engine: Engine = "transformers"
    auto: Sampling = Sampling()  # the round's answers
    trigger: Sampling | None = Sampling(samples=2)  # further answers with an instruction added; null: none
    eval: Sampling = Sampling(samples=1, temperature=0)  # the answers that metrics are computed on
    pool: Sampling = Sampling(samples=1, temperature=0.7, top_p=0.9, max_tokens=512, turns=1)  # answers to prompts.pool
    batch_size: PositiveInt = 256  # conversations per batch of the transformers engine
    dtype: Dtype = "float32"
    threads: PositiveInt = 1  # CPU threads per job
    gpus: NonNegativeInt = 1  # per job, on machines that have any
    tensor_parallel: PositiveInt | None = None  # GPUs that one replica of the model is split over; null: all
    openai: Endpoint | None = None  # the endpoint, if the engine calls one
    script: str | None = None  # playback: the folder of the scripts; rehearsals set it

    def engine_of(self, version: str) -> str:
        """Return the engine that answers in a version: auto, trigger, eval or pool."""
        sampling = getattr(self, version)
        return (sampling.engine if sampling else None) or self.engine

    def is_remote(self, version: str) -> bool:
        """Return whether an endpoint answers in this version, in place of a policy."""
        return bool(plugins.constants("engines", self.engine_of(version)).get("REMOTE"))


# ---------------------------------------------------------------- data, scoring, tracking


class Source(Section):
    """Training rows that exist already: a local file or folder, or a data set on the hub (core/formats.py)."""

    file: str  # .jsonl, .json, .csv, .parquet or .pkl; a folder of `datasets`; a name on the Hugging Face hub
    format: Literal["rewarded", "preference", "sft", "task"]  # task: rows of a run, or of the task's original system
    subset: str | None = None  # the configuration of a data set that has several
    split: str = "train"  # the split of a data set that has several
    revision: str | None = None  # of a data set on the hub: a commit, so that the rows stay the same
    limit: PositiveInt | None = None  # use only the first so many records
    prompt_key: str | None = None  # default: prompt_pretokenized if rewarded, prompt if preference
    response_key: str = "unprocessed_response"  # rewarded
    reward_key: str = "accuracy"  # rewarded
    chosen_key: str = "chosen"  # preference
    rejected_key: str = "rejected"  # preference

    @model_validator(mode="after")
    def has_keys_of_its_format(self):
        used = {
            "sft": (),
            "rewarded": ("prompt_key", "response_key", "reward_key"),
            "preference": ("prompt_key", "chosen_key", "rejected_key"),
            "task": (),
        }[self.format]

        unused = set(Source.model_fields) - {"file", "format", "subset", "split", "revision", "limit", *used}
        for name in sorted(unused):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"format {self.format} does not use `{name}`; its keys are {', '.join(used) or 'none'}"
                )
        return self


class Data(Section):
    """Settings of a round's training data and its advantages."""

    tag: Name = "all"  # part of the file names
    dedup: bool = False  # count equal answers to one question once, as AutoCode does
    advantage: Literal["raw", "sign", "group", "group_std"] = "sign"  # see core/advantages.py
    advantage_clip: PositiveFloat | None = None  # clip advantages to ± this value
    data_filter: Literal["none", "posonly"] = "none"  # posonly: keep only rewards above the threshold
    threshold: float = 0.75
    source: Source | None = None  # existing rows that every round trains on, in place of the rounds' own answers


class Results(Section):
    """Files of earlier answers that stand in for a round's own."""

    auto: list[str] = []
    trigger: list[str] = []

    @model_validator(mode="after")
    def has_files(self):
        if not (self.auto or self.trigger):
            raise ValueError("name at least one file under `auto` or `trigger`")
        return self


class Metas(Section):
    """Meta files that stand in for those of a round: graded answers by question."""

    auto: str | None = None
    trigger: str | None = None

    @model_validator(mode="after")
    def has_files(self):
        if not (self.auto or self.trigger):
            raise ValueError("name a file under `auto`, under `trigger` or under both")
        return self


class Rows(Source):
    """Training rows that stand in for those of a round."""

    logp: list[str] = []  # their log-probs, files or folders: used if their passport fits, else computed again


class Logp(Section):
    """Scoring a round's data under the checkpoint that training starts from."""

    tokens_per_bin: PositiveInt = 16384  # tokens in one forward pass
    dtype: Dtype = "float32"
    gpus: NonNegativeInt = 1  # per job, on machines that have any; each scores a part of the shard
    threads: PositiveInt = 1  # CPU threads per job


class Wandb(Section):
    """Curves of each round's training. The key comes from the environment only: WANDB_API_KEY."""

    mode: Literal["offline", "online", "disabled"] = "offline"
    project: Name | None = None  # default: the run's name
