"""The sections of generation: jobs, sampling, engines, and the judge."""

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from workflow_scripts.config.sections.base import Dtype, Engine, Section, exactly_one
from workflow_scripts.config.sections.endpoints import Endpoint
from workflow_scripts.core.running import plugins

Jobs = Annotated[int, Field(ge=1, le=1000)]  # more jobs for one stage are more than Snakemake plans in a minute


class Shards(Section):
    """The jobs of a record stage and round, by what they work on. A number stands for `{auto: number}`."""

    auto: Jobs  # the answers of a round in auto mode; also what is left at null below
    trigger: Jobs | None = None  # its triggered answers
    eval: Jobs | None = None  # the answers to the eval questions
    pool: Jobs | None = None  # the answers to the pool
    logp: Jobs | None = None  # the log-probs of the training data

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


class Structured(Section):
    """The form of an answer. The engine samples only tokens that lead to it."""

    regex: str | None = None  # a regular expression that each turn matches as a whole
    json_schema: dict[str, Any] | None = None  # a JSON schema; each turn is a JSON value that fits it

    @model_validator(mode="after")
    def is_possible(self):
        exactly_one(regex=self.regex, json_schema=self.json_schema)

        if self.regex is not None:
            try:
                re.compile(self.regex)
            except re.error as error:
                raise ValueError(f"`regex` is not a regular expression: {error}") from None
        else:
            _check_schema(self.json_schema)

        return self


def _check_schema(schema: Any) -> None:
    from jsonschema import SchemaError, validators  # imported here, since few configs have a schema

    try:
        validators.validator_for(schema).check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"`json_schema` is not a JSON schema: {error.message}") from None


class Sampling(Section):
    """Sampling settings of one version of answers."""

    engine: Engine | None = None  # in place of generate.engine
    samples: PositiveInt = 8  # answers per prompt (per trigger, in trigger mode)
    temperature: NonNegativeFloat = 1.0  # 0 is greedy
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: NonNegativeInt = 0  # 0 is off
    repetition_penalty: PositiveFloat = 1.0  # above 1, tokens that the context has become less likely
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()  # texts that end an answer, as its last part
    structured: Structured | None = None  # the form of each turn; null: any text
    max_tokens: PositiveInt = 1024  # sampled tokens per answer, over all turns
    turns: PositiveInt = 5  # model turns per answer; the environment answers between them
    reply_tokens: PositiveInt | None = None  # the most tokens of an environment's reply; longer ones lose their middle


class SetSampling(Section):
    """What differs from `generate.eval` for one of several eval sets. Null: as there."""

    samples: PositiveInt | None = None  # answers per question
    temperature: NonNegativeFloat | None = None  # 0 is greedy
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None  # sample from the most likely tokens of this mass
    top_k: NonNegativeInt | None = None  # 0 is off
    repetition_penalty: PositiveFloat | None = None  # above 1, tokens that the context has become less likely
    stop: tuple[Annotated[str, Field(min_length=1)], ...] | None = None  # texts that end an answer
    structured: Structured | None = None  # the form of each turn
    max_tokens: PositiveInt | None = None  # sampled tokens per answer, over all turns
    turns: PositiveInt | None = None  # model turns per answer
    reply_tokens: PositiveInt | None = None  # the most tokens of an environment's reply

    def over(self, sampling: Sampling) -> Sampling:
        """Return other settings with what differs."""
        own = {name: getattr(self, name) for name in type(self).model_fields}
        return sampling.model_copy(update={name: value for name, value in own.items() if value is not None})


class Vllm(Section):
    """Settings of vLLM's engine. Null leaves vLLM's own value."""

    ONLY_HOW: ClassVar = (
        "max_num_seqs",
        "gpu_memory_utilization",
        "enable_prefix_caching",
    )  # no answer depends on them

    max_model_len: PositiveInt | None = None  # tokens of prompt and answer; null: the model's context
    max_num_seqs: PositiveInt | None = None  # requests that run at the same time
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = None  # share of a GPU's memory that is taken
    enable_prefix_caching: bool = True  # keep what was computed of prompts and earlier turns
    quantization: Literal["fp8", "fp8_per_block", "int8_per_channel_weight_only"] | None = None  # of loaded weights
    kv_cache_dtype: Literal["auto", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2"] = "auto"  # auto: as the model


class Generate(Section):
    """Settings of generation: the engines, and the sampling of each version of answers."""

    engine: Engine = "transformers"
    auto: Sampling = Sampling()  # the round's answers
    trigger: Sampling | None = Sampling(samples=2)  # further answers with an instruction added; null: none
    eval: Sampling = Sampling(samples=1, temperature=0)  # the answers that metrics are computed on
    pool: Sampling = Sampling(samples=1, temperature=0.7, top_p=0.9, max_tokens=512, turns=1)  # answers to prompts.pool
    batch_size: PositiveInt = 256  # transformers: conversations per batch, which a kill can cost
    dtype: Dtype = "float32"  # of the arithmetic
    save_seconds: PositiveFloat = 10.0  # vllm: seconds between two entries into the ledger, which a kill can cost
    threads: PositiveInt = 1  # CPU threads per job
    programs: PositiveInt | None = None  # programs of the policy that run at the same time; null: as many as threads
    gpus: NonNegativeInt = 1  # per job, on machines that have any
    tensor_parallel: PositiveInt | None = None  # GPUs that one replica of the model is split over; null: all
    vllm: Vllm = Vllm()  # settings that are passed on to vLLM
    keep_engine: NonNegativeFloat = 60.0  # vllm: seconds that it stays loaded for further jobs; 0: each loads its own
    openai: Endpoint | None = None  # the endpoint, if the engine calls one
    script: str | None = None  # playback: the folder of the scripts; rehearsals set it

    def engine_of(self, version: str) -> str:
        """Return the engine that answers in a version: auto, trigger, eval or pool."""
        sampling = getattr(self, version)
        return (sampling.engine if sampling else None) or self.engine

    def is_remote(self, version: str) -> bool:
        """Return whether an endpoint answers in this version, in place of a policy."""
        return bool(plugins.constants("engines", self.engine_of(version)).get("REMOTE"))
