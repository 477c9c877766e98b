# Round 0: the model as it came, or made from scratch, and its supervised cold start.


rule init_model:
    output:
        f"{RUN}/checkpoints/init/checkpoint.json",
    params:
        *get_code("init_model", task=bool(cfg.model.scratch)),
        task=flag("task", cfg.task),
        settings=flag("settings", get_settings(cfg.model)),
        cold_start=flag("cold-start", get_settings(cfg.cold_start, "train")) if cfg.model.scratch else "",
        template=flag("template", cfg.template),
        seed=flag("seed", cfg.seed),
    log:
        f"{RUN}/logs/init_model.log",
    benchmark:
        f"{RUN}/benchmarks/init_model.tsv"
    shell:
        "{STAGE}.init_model {params.task} {params.settings} {params.cold_start} {params.template} "
        "{params.seed} --output {output} 2>&1 | tee {log}"


if cfg.cold_start:

    rule construct_sft:
        input:
            model=rules.init_model.output,
            file=cfg.cold_start.file or [],
        output:
            data=f"{RUN}/data/sft_{EXP}.pkl",
            manifest=f"{RUN}/data/sft_{EXP}.json",
        params:
            *get_code("construct_sft", task=True),
            task=flag("task", cfg.task),
            settings=flag("settings", get_settings(cfg.cold_start, "train")),
            template=flag("template", cfg.template),
            seed=flag("seed", cfg.seed),
        log:
            f"{RUN}/logs/construct_sft.log",
        benchmark:
            f"{RUN}/benchmarks/construct_sft.tsv"
        shell:
            "{STAGE}.construct_sft {params.task} {params.settings} {params.template} {params.seed} "
            "--model {input.model} --output {output.data} 2>&1 | tee {log}"

    rule cold_start:
        input:
            model=rules.init_model.output,
            data=ancient(rules.construct_sft.output.data),
            manifest=rules.construct_sft.output.manifest,
        output:
            f"{RUN}/checkpoints/r0/checkpoint.json",
        params:
            *get_code("train"),
            settings=flag("settings", get_settings(cfg.cold_start.train)),
            seed=flag("seed", cfg.seed),
        log:
            f"{RUN}/logs/cold_start.log",
        benchmark:
            f"{RUN}/benchmarks/cold_start.tsv"
        threads: cfg.cold_start.train.threads
        shell:
            "{STAGE}.train --data {input.data} --model {input.model} {params.settings} {params.seed} "
            "--round 0 --state {RUN}/state/r0 --output {output} 2>&1 | tee {log}"
