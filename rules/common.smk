# What all rules share: the config, where the story branches (is_*), and where files lie (get_*).

import difflib
import glob
import inspect
import json
import os
import re
import shlex
import sys
from functools import partial
from pathlib import Path

from snakemake.cli import get_argument_parser
from snakemake.exceptions import WorkflowError
from snakemake.persistence.file import FilePersistence

sys.path.insert(0, workflow.basedir)
from workflow_scripts import freeze_prompts, tasks
from workflow_scripts.core import resources as sizes
from workflow_scripts.core import shards as prompt_shards
from workflow_scripts.core import slurm
from workflow_scripts.core.code import code_digests
from workflow_scripts.core.config import ConfigError, load as load_config
from workflow_scripts.core.formats import READABLE
from workflow_scripts.core.manifest import file_digest, manifest_of
from workflow_scripts.core.records import BadInput, read_json
from workflow_scripts.core.rewards import needs_model
from workflow_scripts.core.sections import ENDPOINT, without_endpoint

try:
    cfg = load_config(config)
except ConfigError as error:
    raise WorkflowError(str(error))

task = tasks.load(cfg.task)
made_up = {f"prompts.{name}": getattr(cfg.prompts, name) for name in ("train", "pool", "eval")}
made_up |= {"cold_start": cfg.cold_start}
if wrong := [key for key, section in made_up.items() if section and section.count and not task.MAKES_UP]:
    raise WorkflowError(f"config: {wrong[0]}.count: the task {cfg.task!r} makes up nothing: give {wrong[0]}.file")

if cfg.results and not hasattr(task, "question_of"):
    raise WorkflowError(
        f"config: results: AutoCode's files cannot be read as answers of the task {cfg.task!r}; remove it"
    )

if cfg.reward and "reward" not in inspect.signature(task.grade).parameters:
    raise WorkflowError(f"config: reward: the task {cfg.task!r} judges in its own way alone; remove the key")

# A job on a cluster leaves its outputs marked as incomplete, until the driver has recorded what they were made with. What
# a job finishes after its driver was killed has no such record, and must not count as made by the config of today.
if workflow.remote_exec:
    FilePersistence._unmark_incomplete = lambda persistence, key: None

RUN = f"runs/{cfg.name}"
EXP = cfg.expname or cfg.name
CATALOGUE = [f"{RUN}/catalogue/items.pkl"] if cfg.recommend else []
EXPLORED = f"{RUN}/explore/{EXP}"
if cfg.cold_start and cfg.cold_start.explored:  # the teacher's dialogues are the cold start's file
    learnt = cfg.cold_start.model_copy(update={"file": f"{EXPLORED}_sft.jsonl", "explored": None})
    cfg = cfg.model_copy(update={"cold_start": learnt})
RANKS = [f"{cfg.shards}_{rank}" for rank in range(cfg.shards)]
VERSIONS = ["auto", "trigger"]
# Of BLEUBERI's files: the pool's and the model's name, references, mode and number of prompts.
if cfg.selection:
    POOL = Path(cfg.prompts.pool.file or "made_up").stem
    REFS = f"{len(cfg.prompts.ref_models)}ref-{'-'.join(cfg.prompts.ref_models)}"
    SCORED = f"{POOL}_{Path(cfg.selection.metric).stem}_{EXP}_{REFS}"
    SELECTED = f"{SCORED}_{cfg.selection.mode}_{cfg.selection.num_examples}"
TRAINING_DATA = [f"{RUN}/data_grpo/{SELECTED}", f"{RUN}/data_sft/{SELECTED}_SFT"] if cfg.selection else []
SOURCE = re.sub(r"[^\w.-]", "_", Path(cfg.data.source.file).name) if cfg.data.source else None

# Jobs run the Python that runs Snakemake (or, with --sdm conda, that of ENV), from any working directory.
ENV = f"{workflow.basedir}/envs/roundhouse.yaml".replace("{", "{{").replace("}", "}}")  # Snakemake formats it
path = (
    ""
    if workflow.deployment_settings.deployment_method
    else f"PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH "
)
# wandb is told by its own variables: no params, so changing them reruns nothing; one set by hand wins
WANDB = {"WANDB_MODE": cfg.wandb.mode, "WANDB_PROJECT": cfg.wandb.project or cfg.name}
exported = " ".join(f"{key}={shlex.quote(os.environ.get(key, value))}" for key, value in WANDB.items())


wildcard_constraints:
    n=r"\d+",
    version="auto|trigger",
    shard=r"\d+_\d+",


##### where the story branches #####


def is_imported(n):
    """Whether a round's answers come from files; then nothing is generated for it."""
    return int(n) in cfg.results


def is_asked(n, version):
    """Whether a round has answers of this version."""
    if is_imported(n):
        return bool(getattr(cfg.results[int(n)], version))
    return version == "auto" or cfg.generate.trigger is not None


def is_api(version):
    """Whether an endpoint answers in this version (1 or 0: such jobs take one of the profile's `api` at a time)."""
    return int(cfg.generate.engine_of(version) == "openai")


def is_vllm():
    """Whether vLLM answers in some version; `generate` then runs in vLLM's environment."""
    return "vllm" in map(cfg.generate.engine_of, ("auto", "trigger", "eval", *(["pool"] if cfg.selection else [])))


##### files #####


def get_checkpoint(n):
    """The checkpoint of round n; without a cold start, round 0 is the model as it came."""
    if int(n) == 0 and not cfg.cold_start:
        return f"{RUN}/checkpoints/init/checkpoint.json"
    return f"{RUN}/checkpoints/r{n}/checkpoint.json"


def get_model_files(path):
    """The files of a model, if it lies in a local folder, so that another one is noticed."""
    return sorted(glob.glob(f"{path}/*.*")) if path else []


def is_file(name):
    """A file that is here, or should be; neither a folder nor a data set on the hub."""
    return Path(name).suffix in READABLE and not os.path.isdir(name)


def is_on_hub(name):
    """A data set on the hub: neither here, nor named as a file would be."""
    return not (os.path.exists(name) or name.endswith((*READABLE, ".py")) or re.match(r"[/.~]", name))


def get_reward_files(name):
    """The file of a reward of the user's own, or those of the model that gives it, as inputs."""
    if needs_model(name):
        return get_model_files(cfg.reward_model)
    return [name.rpartition(":")[0]] if name and ":" in name else []


def get_local(name):
    """A file or folder as an input; a data set on the hub is none."""
    return [name] if is_file(name) or os.path.isdir(name) else []


def get_policy(wildcards):
    """The checkpoint that answers in round n, that is scored under and that training starts from."""
    return get_checkpoint(int(wildcards.n) - 1)


def get_data(n):
    """What round n trains on, less the suffix: its own graded answers, or rows that exist already."""
    if cfg.data.source:
        return f"{RUN}/data/{SOURCE}_{cfg.data.tag}"
    return f"{RUN}/data/offline_{cfg.data.tag}_r{n}_{EXP}"


# Log-probs of a round's data; of rows that exist already, with CodeRL's name and the number of the scoring checkpoint.
LOGP = f"{get_data('')}_scaleonly_r{{n}}_logp" if SOURCE else f"{get_data('{n}')}_logp"


def get_scored(wildcards):
    """The checkpoint that a log-prob folder is of: for rows that exist already, its name says which."""
    return get_checkpoint(wildcards.n) if cfg.data.source else get_policy(wildcards)


def get_logp(n, scored):
    """The folder of the log-probs of round n's data under checkpoint `scored`."""
    if cfg.data.source:
        return LOGP.format(n=scored)
    return f"{get_data(n)}_logp" if scored == n - 1 else f"{get_data(n)}_ref_logp"


def get_compared(n):
    """The checkpoints whose stored log-probs round n's objective needs, by train's option."""
    reference = 0 if cfg.train.reference == "round0" else n - 1
    return ({"logp": n - 1} if cfg.train.needs_behaviour else {}) | (
        {"ref-logp": reference} if cfg.train.needs_reference else {}
    )


def get_stored_logps(wildcards):
    """Files and passports of the log-probs that training needs, and the reference's checkpoint."""
    n, found = int(wildcards.n), {}
    for option, scored in get_compared(n).items():
        files = [f"{get_logp(n, scored)}/{rank}.pkl" for rank in RANKS]
        name = option.replace("-", "_")
        found |= {name: ancient(files), f"{name}_passports": beside(files)}
        if option == "ref-logp":
            found["reference"] = get_checkpoint(scored)
    return found


def get_compared_logps():
    """Where answers were sampled and scored here: how the two log-probs agree."""
    if cfg.data.source or not cfg.train.needs_behaviour:
        return []
    return [f"{RUN}/report/logps_r{n}.json" for n in range(1, cfg.rounds + 1) if not is_imported(n)]


def get_metas(wildcards):
    """The meta files that round n has, by version."""
    return {
        version: f"{RUN}/meta/r{wildcards.n}_{version}_q2responses_{EXP}.pkl"
        for version in VERSIONS
        if is_asked(wildcards.n, version)
    }


def get_scores(wildcards):
    """Where another stage gives a round's answers their scores."""
    return [f"{RUN}/r{wildcards.n}_score/{cfg.tabular.dataset}.score.jsonl"] if cfg.tabular else []


def get_answers(n):
    """A round's answers, of all versions and shards."""
    asked = [version for version in VERSIONS if is_asked(n, version)]
    return [f"{RUN}/results/r{n}/{version}/{rank}.pkl" for version in asked for rank in RANKS]


def get_answers_before(wildcards):
    """The graded eval answers of the round before, for tasks that compare them."""
    if int(wildcards.n) == 0 or "win_rate" not in task.FIGURES:
        return []
    return [f"{RUN}/evaluation/r{int(wildcards.n) - 1}/{rank}_matchlog.pkl" for rank in RANKS]


def get_verdicts(wildcards):
    """What the judge says of round n's answers."""
    return [f"{RUN}/evaluation/judged/r{wildcards.n}.jsonl"] if cfg.judge and int(wildcards.n) else []


def get_round(n):
    """All that round n promises: its checkpoint, and the figures of every round up to it."""
    pairs = [f"{RUN}/r{k}_dpo/{cfg.tabular.dataset}.pref.jsonl" for k in range(1, n + 1)] if cfg.tabular else []
    others = pairs + (TRAINING_DATA if n else [])  # for other trainers
    return [get_checkpoint(n), *(f"{RUN}/evaluation/r{k}.json" for k in range(n + 1)), *others]


def get_further_rounds():
    """Evaluations beyond the config's rounds that exist: reported as they are, not made again."""
    found = {int(Path(path).stem[1:]): path for path in glob.glob(f"{RUN}/evaluation/r*.json")}
    return [path for n, path in sorted(found.items()) if n > cfg.rounds]


def beside(paths):
    """The manifests beside large outputs: small, so they are compared by content; the outputs are `ancient`."""
    return [re.sub(r"\.[a-z]+$", ".json", path) for path in paths]
