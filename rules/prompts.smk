# Prompts, frozen once: validated, with one digest file per shard. Those from files are frozen by freezing.smk.
if not SOURCES:

    rule freeze_prompts:
        input:
            [file for file in FILES if not is_on_hub(file)],
        output:
            list(FROZEN.values()),
            beside(FROZEN.values()),
            [get_shard_files(split) for split in FROZEN],
        log:
            f"{RUN}/logs/freeze_prompts.log",
        benchmark:
            f"{RUN}/benchmarks/freeze_prompts.tsv"
        conda:
            ENV
        resources:
            **get_data_resources(),
        params:
            *get_code("freeze_prompts", task=True),
            task=flag("task", cfg.task),
            settings=flag("settings", get_settings(cfg.prompts)),
            seed=flag("seed", cfg.seed),
            shards=flag("shards", cfg.shards),
            output=flag("output", f"{RUN}/prompts"),
        shell:
            "python -m workflow_scripts.freeze_prompts {params.task} {params.settings} {params.seed} "
            "{params.shards} {params.output} 2>&1 | tee {log}"
