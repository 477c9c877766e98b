# Prompts, frozen once: validated, with one digest file per shard. Prompts that are here as files are frozen while the
# Snakefile is read (workflow/freezing.py); this rule freezes those that a job has to download or make.

if freezing.frozen and not freezing.is_early:

    rule freeze_prompts:
        input:
            freezing.job_inputs,
        output:
            [run.prompts(split) for split in freezing.frozen],
            manifests(run.prompts(split) for split in freezing.frozen),
            [run.shard_digests(split) for split in freezing.frozen],
        log:
            run.log("freeze_prompts"),
        benchmark:
            run.benchmark("freeze_prompts")
        localrule: any(map(is_on_hub, freezing.files))  # nodes of a cluster often have no way to the internet
        conda:
            ENV
        resources:
            **resources_of.data(),
        params:
            **params_of.stage(
                "freeze_prompts",
                module=freezing.stage,
                settings=settings_of(cfg.prompts.questions),
                seed=cfg.seed,
                shards=cfg.shards.auto,
                output=f"{run.folder}/prompts",
            ),
        shell:
            commands.stage(freezing.stage, commands.more_shards())


# Digest files of the prompts that a round answers. Once they exist, they are brought up to date while the Snakefile is
# read, so this rule has no parameters that Snakemake compares.
if run.slicing:

    rule slice_prompts:
        input:
            prompts=ancient(run.prompts("train")),
            made=[] if freezing.is_early else manifests([run.prompts("train")]),
        output:
            run.answered_digests("{n}"),
        log:
            run.log("slice_prompts/r{n}"),
        localrule: True
        conda:
            ENV
        shell:
            commands.slice_prompts()
