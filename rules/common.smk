# This file holds what all rules use: the config, the run's layout, and the builders of parameters, commands, resources.

import os
import re
import sys

from snakemake.exceptions import WorkflowError
from snakemake.persistence.file import FilePersistence

sys.path.insert(0, workflow.basedir)
from workflow_scripts import rewards, tasks
from workflow_scripts.config.layout import Run, manifests, none_of, one_of
from workflow_scripts.config.sections import settings_of
from workflow_scripts.core.sources import is_file, is_on_hub
from workflow_scripts.workflow import dry_run
from workflow_scripts.workflow.attempts import Attempts, is_locked
from workflow_scripts.workflow.brake import Brake
from workflow_scripts.workflow.commands import Commands, shell_prefix
from workflow_scripts.workflow.environments import Environments
from workflow_scripts.workflow.freezing import (
    Freezing,
    is_model_on_hub,
    local_input,
    logp_files,
    model_files,
    part_files,
    reward_files,
)
from workflow_scripts.workflow.params import ParamsOfRules
from workflow_scripts.workflow.preflight import Preflight
from workflow_scripts.workflow.rehearsal import Rehearsal
from workflow_scripts.workflow.resources import ResourcesOfRules
from workflow_scripts.workflow.retention import Retention
from workflow_scripts.workflow.suites import suite_files
from workflow_scripts.workflow.targets import executor_on_command_line, targets_on_command_line

try:
    rehearsal = Rehearsal(config, [*workflow.configfiles, *workflow.overwrite_configfiles])
except WorkflowError as fault:
    raise fault.with_traceback(None)  # the frames of the schema tell a user nothing
cfg = rehearsal.cfg
run = Run(cfg)
wing = tasks.part_class(cfg.task, "Wing")(cfg, run)
params_of = ParamsOfRules(cfg, run, wing)
environments = Environments(cfg, workflow.basedir, bool(workflow.deployment_settings.deployment_method))
commands = Commands(cfg, run, wing, environments)
resources_of = ResourcesOfRules(cfg, wing, is_local=executor_on_command_line() == "local")
freezing = Freezing(cfg, run, wing, workflow.basedir, workflow.overwrite_configfiles)
brake = Brake(cfg, run, params_of.code.tables)
attempts = Attempts(run)
retention = Retention(cfg, run)
preflight = Preflight(cfg, wing, environments, freezing, retention)

ENV = environments.conda_file()
GENERATE_ENV = environments.conda_file(environments.of_generation)

shell.prefix(shell_prefix(cfg, workflow.basedir, environments.uses_conda))
if workflow.is_main_process:
    if targets_on_command_line() != ["verify"]:  # it may look on while a driver works
        attempts.before_execution(workflow)
    if not is_locked(run.folder, run.folder):
        attempts.restore_left()
freezing.prepare(tells=workflow.is_main_process)
dry_run.watch(workflow, cfg, run, brake, preflight)

# A job on a cluster leaves its outputs marked as incomplete until the driver has recorded what they were made with. What
# a job finishes after its driver was killed has no such record, and must not count as made with the config of today.
if workflow.remote_exec:
    FilePersistence._unmark_incomplete = lambda persistence, key: None


GRADED_PLACES = r"results/r\d+/(?:auto|trigger)|evaluation/r\d+(?:/[^/]+)?"  # folders of answers that are graded


wildcard_constraints:
    n=r"\d+",
    version="auto|trigger",
    shard=r"\d+_\d+",


def policy(wildcards):
    """Return the checkpoint that answers in a round, that its data is scored under, and that training starts from."""
    return run.checkpoint(int(wildcards.n) - 1)


def stored_logps(wildcards):
    """Return the log-probs that a round's training needs, their passports, and the reference's checkpoint."""
    n = int(wildcards.n)
    inputs = {}
    for name, under in run.compared_checkpoints(n).items():
        inputs[name] = ancient(run.logps(n, under))
        inputs[f"{name}_passports"] = manifests(run.logps(n, under))
        if name == "ref_logp":
            inputs["reference"] = run.checkpoint(under)
    return inputs
