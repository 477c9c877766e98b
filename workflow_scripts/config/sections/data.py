"""The sections of the data of a round: its rows, files that exist already, log-probs, and tracking."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from workflow_scripts.config.sections.base import Dtype, Name, Section


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


class Replay(Section):
    """Rows of earlier rounds that a round trains on again, with exact ratios (core/replay.py)."""

    rounds: PositiveInt = 1  # how many rounds back rows may come from
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5  # the largest share of a round's rows that are replayed
    keep: Literal["all", "right"] = "all"  # right: only answers with a positive advantage


class Data(Section):
    """Settings of a round's training data and its advantages."""

    tag: Name = "all"  # part of the file names
    dedup: bool = False  # count equal answers to one question once, as AutoCode does
    advantage: Literal["raw", "sign", "group", "group_std", "rloo", "batch_std"] = "sign"  # see core/advantages.py
    std_epsilon: NonNegativeFloat = (
        0.0  # group_std, batch_std: added to the deviation, so that tiny differences count little
    )
    advantage_clip: PositiveFloat | None = None  # clip advantages to ± this value
    data_filter: Literal["none", "posonly"] = "none"  # posonly: keep only rewards above the threshold
    threshold: float = 0.75  # the reward above which posonly keeps an answer
    max_length: PositiveInt | None = None  # cut answers to so many tokens, prompt included; they then count as cut off
    # Answers that were cut off (finish `length`): keep trains on them as on others, mask leaves them out after they
    # have counted for their group's advantages, penalise limits their reward to truncated_reward.
    truncated: Literal["keep", "mask", "penalise"] = "keep"
    truncated_reward: float = 0.0  # penalise: the most that the reward of an answer that was cut off counts
    replay: Replay | None = None  # rows of earlier rounds that are trained on again; null: none
    source: Source | None = None  # existing rows that every round trains on, in place of the rounds' own answers


class Results(Section):
    """Files of earlier answers that stand in for a round's own."""

    auto: list[str] = Field([])  # answers in auto mode
    trigger: list[str] = Field([])  # triggered answers

    @model_validator(mode="after")
    def has_files(self):
        if not (self.auto or self.trigger):
            raise ValueError("name at least one file under `auto` or `trigger`")
        return self


class Metas(Section):
    """Meta files that stand in for those of a round: graded answers by question."""

    auto: str | None = None  # of answers in auto mode
    trigger: str | None = None  # of triggered answers

    @model_validator(mode="after")
    def has_files(self):
        if not (self.auto or self.trigger):
            raise ValueError("name a file under `auto`, under `trigger` or under both")
        return self


class Rows(Source):
    """Training rows that stand in for those of a round."""

    logp: list[str] = Field([])  # their log-probs, files or folders: used if their passport fits, else computed again


class Logp(Section):
    """Scoring a round's data under the checkpoint that training starts from."""

    tokens_per_bin: PositiveInt = 16384  # tokens in one forward pass
    dtype: Dtype = "float32"  # of the arithmetic; that of `train` if log-probs are compared
    gpus: NonNegativeInt = 1  # per job, on machines that have any; the model is divided over them
    threads: PositiveInt = 1  # CPU threads per job


class Publish(Section):
    """What the cards of a published round say about licences. See `round<n>_publish`."""

    license: str | None = None  # of the published model, as the hub spells it, such as apache-2.0
    data_license: str | None = None  # of the published training data
    licences: dict[str, str] = Field(default_factory=dict)  # of models and data that the run starts from, by name


# What writes curves of training → the packages of which one must be installed.
TRACKERS = {"wandb": ("wandb",), "tensorboard": ("tensorboard", "tensorboardX"), "mlflow": ("mlflow",)}


class Wandb(Section):
    """Curves of each round's training. The key comes from the environment only: WANDB_API_KEY."""

    mode: Literal["offline", "online", "disabled"] = "offline"
    project: Name | None = None  # default: the run's name
