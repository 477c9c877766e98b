"""What each stage may be told, with defaults: one model per section of the config.

Stages receive their own section as JSON (`--settings`) and validate it with the same models.
"""

import difflib
import re
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from workflow_scripts.core.rewards import REWARDS

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Share = Annotated[float, Field(ge=0, le=1)]


def _known_reward(name: str) -> str:
    if name not in REWARDS and not re.fullmatch(r".+\.py:\w+", name):
        raise ValueError(f"there is no such reward; rewards are {', '.join(REWARDS)}, or FILE.py:FUNCTION")
    return name


Reward = Annotated[str, AfterValidator(_known_reward)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def either(**options) -> None:
    """Exactly one of the options must be given."""
    given = [name for name, value in options.items() if value is not None]
    if len(given) != 1:
        found = "both are given: set one to null" if given else "neither is given"
        raise ValueError(f"give either {' or '.join(f'`{name}`' for name in options)}; {found}")


class Split(Section):
    """Where the prompts of one split come from: a file, or `count` questions that the task makes up."""

    file: str | None = None  # .jsonl, .json, .csv or .parquet
    count: dict[str, NonNegativeInt] | None = None  # level → number of questions
    limit: PositiveInt | None = None  # the first so many records of the file

    @model_validator(mode="after")
    def one_source(self):
        either(file=self.file, count=self.count)
        return self


class Prompts(Section):
    eval: Split
    train: Split | None = None  # none where data.source holds the rows to train on
    pool: Split | None = None  # in place of train: prompts that the train prompts are selected from (`selection`)
    question_key: str = "question"
    answer_key: str = "answer"
    ref_models: list[str] = Field(["gold"], min_length=1)  # task reference: references of a pool, ref_output_{model}
    references: PositiveInt = 3  # task reference: how many its made-up instructions have; for eval it is always 3
    instruction: str | None = None  # task recommend: what the recommender is told before the dialogue
    history: PositiveInt = 5  # task recommend: utterances of a given dialogue that it sees, the last ones
    catalogue: str | None = None  # task recommend: a file of items with `title`; else those that the dialogues name


class Scratch(Section):
    """A Llama made in place, with a byte-level BPE tokenizer trained on the cold start's texts."""

    layers: PositiveInt = 3
    width: PositiveInt = 128
    heads: PositiveInt = 4
    mlp_width: PositiveInt = 384
    vocabulary: PositiveInt = 384
    context: PositiveInt = 2048
    init_std: PositiveFloat = 0.06

    @model_validator(mode="after")
    def heads_divide_width(self):
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} is not an even multiple of heads {self.heads}")
        if self.vocabulary < 258:
            raise ValueError(f"vocabulary {self.vocabulary}: 256 bytes and two special tokens are the least")
        return self


class Model(Section):
    """The model that round 0 starts from: one that exists, or one made from scratch."""

    path: str | None = None  # a folder, or a name on the Hugging Face hub
    revision: str | None = None
    parameters: PositiveFloat | None = None  # such as 7e9, of a model on the hub: sizes what is asked of a cluster
    scratch: Scratch | None = None

    @model_validator(mode="after")
    def one_source(self):
        either(path=self.path, scratch=self.scratch)
        return self


class DeepSpeed(Section):
    """ZeRO, for models that one process cannot hold."""

    stage: Annotated[int, Field(ge=0, le=3)] = 2
    offload: bool = False  # optimizer (and, in stage 3, weights) in the CPU's memory


class Lora(Section):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685) are trained, and merged into what is published."""

    r: PositiveInt = 64
    alpha: PositiveFloat = 16.0  # adapters count alpha / r
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0  # before the adapters, in sft alone: a ratio would be noise
    targets: list[str] = Field(["q_proj", "v_proj"], min_length=1)  # names of linear layers
    bits: Literal[4] | None = None  # 4: the weights beneath are in nf4 (QLoRA, arXiv 2305.14314); in sft alone


class Train(Section):
    """One training stage. Token counts are per process; sequences per update are over all processes."""

    objective: Literal["sft", "ips", "clip", "topr", "dpo"] = "clip"
    lr: PositiveFloat = 1e-6
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    schedule_over: Literal["round", "rounds"] = "round"  # one schedule per round, or one over all of the config's
    warmup: Share = 0.03  # share of the updates
    optimizer: Literal["fresh", "carry"] = "fresh"  # AdamW's moments: new in each round, or carried on
    weight_decay: NonNegativeFloat = 0.0
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    adam_eps: PositiveFloat = 1e-8  # larger: vanishing gradients make vanishing updates, not drift
    grad_norm: PositiveFloat = 1.0
    epochs: PositiveInt = 1
    batch_size: PositiveInt = 64  # rows (for dpo, pairs) per update
    updates_per_round: PositiveInt | None = None  # shares the data out among so many, in place of batch_size
    tokens_per_bin: PositiveInt = 8192  # tokens that one forward pass holds
    max_length: PositiveInt = 2048  # longer rows are rejected, never cut
    clip_low: PositiveFloat = 0.2  # clip: ratios outside 1 - clip_low … 1 + clip_high gain nothing more
    clip_high: PositiveFloat = 0.2
    ratio_cap: PositiveFloat = 1.2  # ips: ratios count as at most this
    kl: NonNegativeFloat = 0.0  # weight of clip's KL term to the reference, or of the likelihood term of ips
    dpo_beta: PositiveFloat = 0.1  # dpo: how sharply a preference counts
    nll_weight: NonNegativeFloat = 1.0  # dpo: weight of the chosen answers' likelihood
    reference: Literal["round0", "previous"] = "round0"  # the model of kl (clip) and of dpo
    foreign_ratio: Literal["one", "proximal"] = "one"  # of rows others wrote: none, or against the round's start
    min_ess: Share = 0.0  # training stops when the ratios' effective sample size falls below this share
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the arithmetic; weights are float32
    gradient_checkpointing: bool = False  # less memory, a third more work
    lora: Lora | None = None  # null: all weights are trained
    deepspeed: DeepSpeed | None = None
    processes: PositiveInt = 1  # on each node, started by torchrun, one per GPU
    nodes: PositiveInt = 1  # of a Slurm job; more than one needs Slurm
    save_steps: PositiveInt = 100  # updates between two saved states
    threads: PositiveInt = 2  # CPU threads per process; equal threads give equal bits

    @model_validator(mode="after")
    def possible(self):
        if self.schedule_over == "rounds" and self.updates_per_round is None:
            raise ValueError("schedule_over: rounds needs updates_per_round, so that the end is known at the start")
        if self.kl and self.objective not in ("ips", "clip"):
            raise ValueError(f"kl: objective {self.objective} has no such term; it belongs to ips and clip")
        if self.min_ess and not self.needs_behaviour:
            raise ValueError(f"min_ess: objective {self.objective} takes no ratios")
        if self.lora and self.lora.dropout and self.objective != "sft":
            raise ValueError(f"lora.dropout: objective {self.objective} compares log-probs, and they would be noise: 0")
        if self.lora and self.lora.bits and self.objective != "sft":
            raise ValueError(f"lora.bits: objective {self.objective} compares log-probs, which 4 bits change: null")
        if self.lora and (self.deepspeed or self.optimizer == "carry"):
            raise ValueError("lora needs optimizer: fresh and no deepspeed: each round begins with adapters of its own")
        if self.optimizer == "carry" and self.deepspeed:
            raise ValueError("optimizer: carry does not work with deepspeed, which keeps the moments in pieces: fresh")
        return self

    @property
    def needs_behaviour(self) -> bool:
        """Whether the log-probs under the policy that sampled are used."""
        return self.objective in ("ips", "clip", "topr")

    @property
    def needs_reference(self) -> bool:
        return self.objective == "dpo" or (self.objective == "clip" and self.kl > 0)


class ColdStartTrain(Train):
    """The one supervised stage before the rounds."""

    objective: Literal["sft"] = "sft"
    schedule_over: Literal["round"] = "round"
    optimizer: Literal["fresh"] = "fresh"


class Worked(Section):
    """How many worked examples of a level answer directly, and how many write a program."""

    direct: NonNegativeInt
    code: NonNegativeInt


class ColdStart(Section):
    """Supervised training that makes round0_checkpoint."""

    file: str | None = None  # rows with question and solution, or of format sft (`core/formats.py`)
    count: dict[str, Worked | NonNegativeInt] | None = None  # level → worked examples that the task makes up
    explored: Literal[True] | None = None  # task recommend: what the teacher's dialogues give (`recommend.explore`)
    train: ColdStartTrain = ColdStartTrain()

    @model_validator(mode="after")
    def one_source(self):
        either(file=self.file, count=self.count, explored=self.explored)
        return self


class Selection(Section):
    """Which prompts of prompts.pool are trained on, by how well the model that round 0 starts from answers them."""

    mode: Literal["hard", "easy", "medium", "random"] = "hard"  # lowest, highest or middle scores, or any
    num_examples: PositiveInt = 5000
    metric: Reward = "bleu"
    inference: str | None = None  # answers that exist already: a .csv with id and response; missing ones are generated


Engine = Literal["transformers", "vllm", "openai"]


class Sampling(Section):
    engine: Engine | None = None  # another than generate.engine
    samples: PositiveInt = 8  # answers per prompt (per trigger, in trigger mode)
    temperature: NonNegativeFloat = 1.0  # 0 is greedy
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: NonNegativeInt = 0  # 0 is off
    max_tokens: PositiveInt = 1024  # sampled tokens per answer, over all turns
    turns: PositiveInt = 5  # model turns per answer: code runs in between


class Prices(Section):
    """Of a million tokens, in any currency."""

    input: NonNegativeFloat
    cached: NonNegativeFloat
    output: NonNegativeFloat


class OpenAI(Section):
    """An OpenAI-compatible endpoint. Only `base_url` and `model` determine results, so only they rerun anything."""

    base_url: str
    model: str
    key_env: str | None = "OPENAI_API_KEY"  # the environment variable that holds the key; null: none is needed
    concurrency: PositiveInt = 16  # requests in flight
    requests_per_minute: PositiveFloat | None = None
    tokens_per_minute: PositiveFloat | None = None  # prompt estimated, max_tokens in full, as servers count
    timeout: PositiveFloat = 120.0  # seconds per request
    prices: Prices = Prices(input=0, cached=0, output=0)
    budget: PositiveFloat | None = None  # of the whole run, in the prices' currency; reached, the stage stops

    @model_validator(mode="after")
    def budget_has_prices(self):
        if self.budget is not None and not (self.prices.input or self.prices.output):
            raise ValueError("a budget needs `prices: {input: …, cached: …, output: …}` per million tokens")
        return self


ENDPOINT = set(OpenAI.model_fields) - {"base_url", "model"}  # how it is asked: no result depends on it


def without_endpoint(settings):
    """Settings as JSON values, at any depth less how endpoints are asked."""
    if not isinstance(settings, dict):
        return settings
    left_out = ENDPOINT if {"base_url", "model"} <= settings.keys() else ()
    return {name: without_endpoint(value) for name, value in settings.items() if name not in left_out}


class Judge(Section):
    """Who says which of two answers is better."""

    openai: OpenAI
    temperature: NonNegativeFloat = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_tokens: PositiveInt = 16


class Generate(Section):
    engine: Engine = "transformers"
    auto: Sampling = Sampling()
    trigger: Sampling | None = Sampling(samples=2)  # null: auto mode alone
    eval: Sampling = Sampling(samples=1, temperature=0)
    pool: Sampling = Sampling(samples=1, temperature=0.7, top_p=0.9, max_tokens=512, turns=1)  # see `selection`
    batch_size: PositiveInt = 256  # conversations per batch of the transformers engine
    dtype: Literal["float32", "bfloat16"] = "float32"
    threads: PositiveInt = 1
    gpus: NonNegativeInt = 1  # per job, where there are any
    tensor_parallel: PositiveInt | None = None  # vllm: GPUs that one copy of the model is split over; all by default
    openai: OpenAI | None = None  # the endpoint, where the engine is openai

    def engine_of(self, version: str) -> str:
        """The engine that answers in this version: auto, trigger or eval."""
        sampling = getattr(self, version)
        return sampling.engine or self.engine if sampling else self.engine


SWITCHES = ("minimal", "keeptrigger", "negbetter", "all")


def _switches(tag: str) -> str:
    for part in tag.split("_"):
        near = difflib.get_close_matches(part, SWITCHES, n=1, cutoff=0.75)
        if near and part not in SWITCHES:
            raise ValueError(f"{part!r} is no switch; did you mean {near[0]!r}? Switches are {', '.join(SWITCHES)}")
    return tag


class Source(Section):
    """Training rows that exist already: a local file or folder, or a data set on the hub (`core/formats.py`)."""

    file: str  # .jsonl, .json, .csv or .parquet; a folder of `datasets`; a name on the Hugging Face hub
    format: Literal["rewarded", "preference", "sft"]
    split: str = "train"  # of a data set that has several
    revision: str | None = None  # of a data set on the hub: a commit, so that the rows stay the same
    prompt_key: str | None = None  # prompt_pretokenized if rewarded, prompt if preference
    response_key: str = "unprocessed_response"  # rewarded
    reward_key: str = "accuracy"  # rewarded
    chosen_key: str = "chosen"  # preference
    rejected_key: str = "rejected"  # preference

    @model_validator(mode="after")
    def keys_of_the_format(self):
        used = {
            "sft": (),
            "rewarded": ("prompt_key", "response_key", "reward_key"),
            "preference": ("prompt_key", "chosen_key", "rejected_key"),
        }[self.format]
        for name in sorted(set(type(self).model_fields) - {"file", "format", "split", "revision", *used}):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"`{name}` means nothing to format {self.format}; it has {', '.join(used) or 'no keys'}"
                )
        return self


class Data(Section):
    """What a round trains on (see `tasks/<task>.py:select`)."""

    tag: Annotated[Name, AfterValidator(_switches)] = "keeptrigger"
    dedup: bool = False  # the original counts equal texts of one question once
    advantage: Literal["raw", "sign", "group", "group_std"] = "sign"
    advantage_clip: PositiveFloat | None = None  # advantages are cut off at ± this
    data_filter: Literal["none", "posonly"] = "none"  # posonly: rewards above the threshold alone
    threshold: float = 0.75
    easy_success: Share = 0.75  # triggered answers above this success are thinned out by half
    pairs: PositiveInt = 1000  # task tabular: preference pairs of a round, at most
    source: Source | None = None  # rows that exist already, in place of rounds' own answers: every round trains on them


class Results(Section):
    """Files of earlier answers that stand in for a round's own, in AutoCode's pickle format."""

    auto: list[str] = []
    trigger: list[str] = []

    @model_validator(mode="after")
    def some(self):
        if not (self.auto or self.trigger):
            raise ValueError("name at least one file under `auto` or `trigger`")
        return self


class Logp(Section):
    """Scoring a round's data under the checkpoint that training starts from."""

    tokens_per_bin: PositiveInt = 16384
    dtype: Literal["float32", "bfloat16"] = "float32"
    gpus: NonNegativeInt = 1  # per job, where there are any; each scores a part of the shard
    threads: PositiveInt = 1


class Wandb(Section):
    """Curves of each round's training. The key comes from the environment only: WANDB_API_KEY."""

    mode: Literal["offline", "online", "disabled"] = "offline"
    project: Name | None = None  # the run's name by default
