"""The sections of the training stages: the cold start, and the training of a round."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from workflow_scripts.config.sections.base import Dtype, Objective, Section, Share, exactly_one
from workflow_scripts.core.running import plugins

SMOOTHED = ("dpo", "robust_dpo")  # objectives with label smoothing


def updates_of_pass(units: int, batch_size: int) -> int:
    """Return the number of updates of one pass over so many rows or pairs.

    If a single one is left over of batches of at least four, or less than a sixteenth of a batch, it joins the update
    before it. An update of its own would move the weights as far as a whole batch does.
    """
    whole, left = divmod(units, batch_size)
    joins = whole > 0 and batch_size >= 4 and left > 0 and (left == 1 or 16 * left < batch_size)
    return whole + (left > 0) - joins


class DeepSpeed(Section):
    """DeepSpeed's ZeRO, in place of FSDP2, for its offloading."""

    ENVIRONMENT: ClassVar = "deepspeed"  # envs/deepspeed.yaml
    PACKAGES: ClassVar = ("deepspeed",)
    PROGRAMS: ClassVar = ("c++",)  # it compiles an extension when it starts

    stage: Annotated[int, Field(ge=0, le=3)] = 2  # of ZeRO: what is divided over the processes
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
    lr: PositiveFloat = 1e-6  # AdamW; the peak of the schedule
    schedule: Literal["constant", "cosine", "linear", "cosine_min"] = "constant"  # cosine_min ends at a tenth of lr
    schedule_over: Literal["round", "rounds"] = "round"  # one schedule per round, or one over all rounds of the config
    warmup: Share = 0.03  # share of the updates
    optimizer: Literal["fresh", "carry"] = "fresh"  # AdamW's moments: reset in each round, or carried on
    weight_decay: NonNegativeFloat = 0.0  # AdamW
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999  # AdamW
    adam_eps: PositiveFloat = 1e-8  # a larger value turns vanishing gradients into vanishing updates instead of drift
    grad_norm: PositiveFloat = 1.0  # gradients are clipped to this norm
    epochs: PositiveInt = 1  # passes over a round's data
    batch_size: PositiveInt = 64  # rows per update (pairs, for objectives on pairs)
    updates_per_round: PositiveInt | None = None  # divide the data among so many updates, in place of batch_size
    tokens_per_bin: PositiveInt = 8192  # tokens in one forward pass
    max_length: PositiveInt = 2048  # longer rows are rejected, never cut; see also data.max_length
    max_rejected: Share = 1.0  # stop before training if a larger share of the rows is rejected
    # What the loss is a mean over. tokens: all tokens of an update (DAPO); rows: rows, of the mean of each row's tokens
    # (GRPO); constant: rows, of the sum of each row's tokens divided by mean_constant (Dr. GRPO); null: see its file.
    mean_over: Literal["tokens", "rows", "constant"] | None = None
    mean_constant: PositiveFloat | None = None  # mean_over constant: usually the most tokens that an answer may have
    clip_low: PositiveFloat = 0.2  # clip, gspo: ratios outside 1 - clip_low … 1 + clip_high gain nothing more
    clip_high: PositiveFloat = 0.2  # see clip_low
    dual_clip: Annotated[float, Field(gt=1)] | None = None  # clip: the largest ratio of tokens with A < 0; often 3.0
    ratio_cap: PositiveFloat = 1.2  # ips, cispo: ratios are clipped above at this value
    kl: NonNegativeFloat = 0.0  # weight of the KL term to the reference, or of the likelihood term of ips
    kl_estimate: Literal["k1", "k2", "k3"] = "k3"  # of the KL term to the reference; see objectives/__init__.py
    entropy: NonNegativeFloat = 0.0  # weight of the policy's exact entropy, which is maximised with the objective
    dpo_beta: PositiveFloat = 0.1  # objectives on preferences: β of their formula
    nll_weight: NonNegativeFloat = 1.0  # dpo, robust_dpo: weight of the chosen answers' likelihood
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0  # dpo (cDPO), robust_dpo: share of flipped preferences
    simpo_margin: NonNegativeFloat = 0.5  # simpo: γ, how much better chosen answers should be
    desirable_weight: PositiveFloat = 1.0  # kto: weight of rows with a positive advantage
    undesirable_weight: PositiveFloat = 1.0  # kto: weight of the others
    reference: Literal["round0", "previous"] = "round0"  # the model that kl and dpo compare with
    router_loss: NonNegativeFloat = 0.0  # mixtures of experts: weight of the loss that balances them; often 0.001
    foreign_ratio: Literal["one", "proximal"] = "one"  # ratio of foreign rows: 1, or against the round's start
    # Replayed rows (data.replay) are left out if log π_start/π_sampled differs from 0 by more per token, on average.
    max_staleness: PositiveFloat | None = None
    # What corrects for the difference between the engine's log-probs and those of training. token and sequence multiply
    # advantages by the ratio of the token or of the whole row, at most correction_cap. mask leaves out tokens whose
    # ratio is not between 1 / correction_cap and correction_cap.
    correction: Literal["none", "token", "sequence", "mask"] = "none"
    correction_cap: Annotated[float, Field(gt=1)] = 2.0  # see correction
    max_mismatch: PositiveFloat | None = None  # stop before training if they differ by more per token, on average
    min_ess: Share = 0.0  # stop when the ratios' effective sample size falls below this share
    max_kl: PositiveFloat | None = None  # stop when an update's KL to the policy that answered is above this, per token
    min_entropy: PositiveFloat | None = None  # stop when an update's entropy is below this, in nats per token
    dtype: Dtype = "float32"  # of the arithmetic; the weights that are trained are float32
    gradient_checkpointing: bool = False  # less memory for a third more work
    lora: Lora | None = None  # null: all weights are trained
    deepspeed: DeepSpeed | None = None  # null: FSDP2 divides the model over several processes
    processes: PositiveInt = 1  # on each node, started by torchrun, one per GPU
    nodes: PositiveInt = 1  # of a Slurm job; more than one needs Slurm
    engine_weights: Literal["bfloat16"] | None = None  # publish weights in this type too, which engines load faster
    save_steps: PositiveInt = 100  # updates between two saved states
    threads: PositiveInt = 2  # CPU threads per process; equal threads give equal bits

    @model_validator(mode="after")
    def is_possible(self):
        if self.schedule_over == "rounds" and self.updates_per_round is None:
            raise ValueError("schedule_over: rounds needs updates_per_round, so that the end is known at the start")
        if self.mean_over and self.mean_over not in (self.uses("MEANS") or ()):
            unit = self.uses("UNIT")
            raise ValueError(
                f"mean_over: the loss of objective {self.objective} is always a mean over {unit}; use null"
            )
        if (self.mean_over == "constant") != (self.mean_constant is not None):
            raise ValueError("mean_constant: mean_over constant needs it, and nothing else uses it; give both or none")
        if self.kl and not self.uses("KL"):
            raise ValueError(f"kl: objective {self.objective} has no such term")
        if self.kl_estimate != "k3" and not (self.kl and self.uses("KL") == "reference"):
            raise ValueError("kl_estimate: there is no KL term to the reference; give kl, with clip, gspo or cispo")
        if self.label_smoothing and self.objective not in SMOOTHED:
            raise ValueError(f"label_smoothing: only {' and '.join(SMOOTHED)} use it, not {self.objective}; use 0")
        if self.entropy and not self.uses("MEANS"):
            raise ValueError(f"entropy: objective {self.objective} compares answers, not tokens; use 0")
        if self.compares_engine and not self.needs_behaviour:
            raise ValueError(f"correction, max_mismatch: objective {self.objective} takes no ratios")
        if self.min_ess and not self.needs_behaviour:
            raise ValueError(f"min_ess: objective {self.objective} takes no ratios")
        if self.max_kl and not self.needs_behaviour:
            raise ValueError(f"max_kl: objective {self.objective} takes no ratios")
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
        return self.updates_per_round or self.epochs * updates_of_pass(units, self.batch_size)

    def uses(self, constant: str) -> Any:
        """Return a constant that the objective declares: UNIT, NEEDS, KL or MEANS."""
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
        return "rows" if self.mean_over == "constant" else self.mean_over or self.uses("UNIT")

    @property
    def compares_engine(self) -> bool:
        """True if training needs the log-probs that the engine gave."""
        return self.correction != "none" or self.max_mismatch is not None

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

    # It is always passed on, since the stage reads this section as a Train section, whose default is another objective.
    objective: Literal["sft"] = Field(default="sft", json_schema_extra={"neutral": None})  # type: ignore[assignment]
    schedule_over: Literal["round"] = "round"  # type: ignore[assignment]
    optimizer: Literal["fresh"] = "fresh"  # type: ignore[assignment]


class Worked(Section):
    """Numbers of worked examples of a level: those that answer directly, and those that write a program."""

    direct: NonNegativeInt  # answered directly
    code: NonNegativeInt  # answered with a program


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
