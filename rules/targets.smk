# What can be asked for by name: round<n>_checkpoint for any n, report, verify.

asked = list(getattr(workflow.dag_settings, "targets", None) or [])
named = {int(m[1]) for m in map(re.compile(r"round(\d+)_checkpoint").fullmatch, asked) if m}


rule all:
    input:
        get_round(cfg.rounds),
    default_target: True


for n in sorted(set(range(cfg.rounds + 1)) | named):

    rule:
        name:
            f"round{n}_checkpoint"
        input:
            get_round(n),
        localrule: True


# A mistyped target is answered here, with what would be right, instead of by a missing-rule error.
known = ["all", "report", "verify", *(f"round{n}_checkpoint" for n in range(cfg.rounds + 1))]
for target in asked:
    if "/" in target or re.fullmatch(r"round\d+_checkpoint|[a-z_]+_checkpoint", target) and target in known:
        continue
    if re.fullmatch(r"round\d+_checkpoint", target) or os.path.exists(target):
        continue
    near = difflib.get_close_matches(target, known, n=1, cutoff=0.6)
    if near and target not in known:
        raise WorkflowError(
            f"there is no target {target!r}; did you mean {near[0]!r}? "
            f"Targets: round<n>_checkpoint for any n, report, verify, all, or a file below {RUN}/"
        )


onsuccess:
    if glob.glob(f"{RUN}/evaluation/r*.json"):
        shell(f"{STAGE}.report --run {RUN} || true")
