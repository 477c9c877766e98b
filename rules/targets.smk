# What can be asked for by name: round<n>_checkpoint for any n, report, verify.

# Snakemake reads this file before it hands out the targets, so they are parsed from the command line here.
from_shell = "snakemake" in Path(sys.argv[0]).parts[-2:]  # bin/snakemake, or python -m snakemake
asked = get_argument_parser().parse_known_args(sys.argv[1:])[0].targets if from_shell else []
named = {int(m[1]) for m in map(re.compile(r"round(0|[1-9]\d*)_checkpoint").fullmatch, asked) if m}


for n in sorted(set(range(cfg.rounds + 1)) | named):

    rule:
        name:
            f"round{n}_checkpoint"
        input:
            get_round(n),
        localrule: True


if cfg.train.schedule_over == "rounds" and (beyond := [n for n in sorted(named) if n > cfg.rounds]):
    raise WorkflowError(
        f"config: train.schedule_over: the schedule ends with round {cfg.rounds} (`rounds`), so there is no round "
        f"{beyond[0]}; raise rounds, which trains all of them anew, or use schedule_over: round"
    )


# A mistyped target is answered here, with what would be right, instead of by a missing-rule error.
for target in asked:
    number = re.search(r"\d+", target)
    rounds = {cfg.rounds, int(number[0]) if number else cfg.rounds} | named
    known = ["all", "report", "verify", *(f"round{n}_checkpoint" for n in sorted(rounds))]
    near = difflib.get_close_matches(target, known, n=1, cutoff=0.6)
    if near and target not in known:
        raise WorkflowError(
            f"there is no target {target!r}; did you mean {near[0]!r}? Targets are round<n>_checkpoint for any n, "
            f"report, verify, all, and the files below {RUN}"
        )


# Beside the jobs that an earlier driver left in Slurm's queue, nothing is started.
SLURM_RUN = Path(f"{RUN}/slurm_run.json")


onstart:
    remote = next((job for job in workflow.dag.needrun_jobs() if not job.is_local), None)
    executor = workflow.scheduler.get_executor(remote) if remote else None
    is_slurm = type(executor).__module__.startswith("snakemake_executor_plugin_slurm")
    try:
        slurm.claim(SLURM_RUN, executor.run_uuid if is_slurm else None)
    except BadInput as error:
        raise WorkflowError(str(error))


onsuccess:
    if glob.glob(f"{RUN}/evaluation/r*.json") and (named or set(asked) <= {"all", "report"}):
        shell(f"python -m workflow_scripts.report --task {cfg.task} --run {RUN} || true")
