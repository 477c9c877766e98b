# These rules are targets with names: round<n>_<stage> for any n, report, verify. Hooks run before and after a run.

import glob
from pathlib import Path

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.running import slurm
from workflow_scripts.workflow import driver, survey
from workflow_scripts.workflow.targets import Targets, allow_many_rounds, arguments_on_command_line

targets = Targets(cfg, run, wing, targets_on_command_line())
targets.check()
allow_many_rounds()


for target, target_files in targets.by_name().items():

    rule:
        name:
            target
        input:
            target_files,
        localrule: True


# Before the first job: nothing is made again without consent, and nothing starts beside jobs that an earlier driver left
# in Slurm's queue.
onstart:
    brake.before_start(workflow)
    if not workflow.touch:
        preflight.before_start(workflow)
    remote = next((job for job in workflow.dag.needrun_jobs() if not job.is_local), None)
    executor = workflow.scheduler.get_executor(remote) if remote else None
    is_slurm = type(executor).__module__.startswith("snakemake_executor_plugin_slurm")
    try:
        slurm.claim(Path(f"{run.folder}/slurm_run.json"), executor.run_uuid if is_slurm else None)
    except BadInput as error:
        raise WorkflowError(str(error))
    survey.note_run(workflow, cfg, run, is_whole=targets.end_with_report())
    if targets.on_command_line != ["verify"]:
        driver.note_start(run.folder, arguments_on_command_line())
    if not workflow.touch:
        attempts.watch(workflow, retention)
    rehearsal.begin(is_local=workflow.local_exec)


# After Ctrl-C, the jobs on this machine have ended, but nobody reported that they failed.
onerror:
    driver.note_end(run.folder, succeeded=False)
    attempts.restore_left()
    rehearsal.after_error()


onsuccess:
    driver.note_end(run.folder, succeeded=True)
    retention.now()
    if glob.glob(f"{run.folder}/evaluation/r*.json") and targets.end_with_report():
        shell("python -m workflow_scripts.report --task {cfg.task} --run {run.folder} || true")
        shell("python -m workflow_scripts.page --task {cfg.task} --run {run.folder} --closing || true")
