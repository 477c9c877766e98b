"""The general sections of the config: one model per section, with types, defaults and meanings.

Stages receive their section as JSON (`--settings`) and validate it with the same models. Keys that are left at their
neutral value are not passed on (`settings_of`), so a new key with a neutral default reruns nothing.
"""

from workflow_scripts.config.sections.base import (
    HIDDEN,
    Dtype,
    Engine,
    Name,
    Objective,
    Reward,
    Section,
    Share,
    TaskName,
    Url,
    exactly_one,
)
from workflow_scripts.config.sections.data import (
    TRACKERS,
    Data,
    Logp,
    Metas,
    Publish,
    Replay,
    Results,
    Rows,
    Source,
    Wandb,
)
from workflow_scripts.config.sections.endpoints import Endpoint, Prices
from workflow_scripts.config.sections.generation import Generate, Sampling, SetSampling, Shards, Structured, Vllm
from workflow_scripts.config.sections.prompts import (
    EVAL_TAGS,
    EvalSet,
    EvalSets,
    Model,
    Prompts,
    Scratch,
    Screening,
    Split,
)
from workflow_scripts.config.sections.retention import Keep
from workflow_scripts.config.sections.rewards import OWN_GRADE, REWARD_TAGS, Judge, Part, Rewards, RewardTraining
from workflow_scripts.config.sections.suites import Evaluate, Suite
from workflow_scripts.config.sections.training import ColdStart, ColdStartTrain, DeepSpeed, Lora, Train, Worked
from workflow_scripts.config.sections.values import endpoints_of, settings_of

__all__ = [
    "EVAL_TAGS",
    "HIDDEN",
    "OWN_GRADE",
    "REWARD_TAGS",
    "TRACKERS",
    "ColdStart",
    "ColdStartTrain",
    "Data",
    "DeepSpeed",
    "Dtype",
    "Endpoint",
    "Engine",
    "EvalSet",
    "EvalSets",
    "Evaluate",
    "Generate",
    "Judge",
    "Keep",
    "Logp",
    "Lora",
    "Metas",
    "Model",
    "Name",
    "Objective",
    "Part",
    "Prices",
    "Prompts",
    "Publish",
    "Replay",
    "Results",
    "Reward",
    "RewardTraining",
    "Rewards",
    "Rows",
    "Sampling",
    "Scratch",
    "Screening",
    "Section",
    "SetSampling",
    "Shards",
    "Share",
    "Source",
    "Split",
    "Structured",
    "Suite",
    "TaskName",
    "Train",
    "Url",
    "Vllm",
    "Wandb",
    "Worked",
    "endpoints_of",
    "exactly_one",
    "settings_of",
]
