# Round 0: the model as it came, or made from scratch, and its supervised cold start.


rule init_model:
    input:
        get_model_files(cfg.model.path),
        # whose texts the tokenizer of a model from scratch learns
        get_local(cfg.cold_start.file) if cfg.model.scratch and cfg.cold_start.file else [],
    output:
        f"{RUN}/checkpoints/init/checkpoint.json",
    log:
        f"{RUN}/logs/init_model.log",
    benchmark:
        f"{RUN}/benchmarks/init_model.tsv"
    conda:
        ENV
    resources:
        **by_attempt(sizes.of_model),
    params:
        *get_code("init_model", task=bool(cfg.model.scratch)),
        task=flag("task", cfg.task),
        settings=flag("settings", get_settings(cfg.model)),
        cold_start=flag("cold-start", get_settings(cfg.cold_start, "train")) if cfg.model.scratch else "",
        template=flag("template", cfg.template),
        seed=flag("seed", cfg.seed),
    shell:
        "python -m workflow_scripts.init_model {params.task} {params.settings} {params.cold_start} {params.template} "
        "{params.seed} --output {output} 2>&1 | tee {log}"


if cfg.cold_start:

    rule construct_sft:
        input:
            model=rules.init_model.output,
            file=get_local(cfg.cold_start.file) if cfg.cold_start.file else [],
        output:
            data=f"{RUN}/data/sft_{EXP}.pkl",
            manifest=f"{RUN}/data/sft_{EXP}.json",
        log:
            f"{RUN}/logs/construct_sft.log",
        benchmark:
            f"{RUN}/benchmarks/construct_sft.tsv"
        conda:
            ENV
        resources:
            **get_data_resources(),
        params:
            *get_code("construct_sft", task=True),
            task=flag("task", cfg.task),
            settings=flag("settings", get_settings(cfg.cold_start, "train")),
            template=flag("template", cfg.template),
            seed=flag("seed", cfg.seed),
        shell:
            "python -m workflow_scripts.construct_sft {params.task} {params.settings} {params.template} {params.seed} "
            "--model {input.model} --output {output.data} 2>&1 | tee {log}"

    rule cold_start:
        input:
            model=rules.init_model.output,
            data=ancient(rules.construct_sft.output.data),
            manifest=rules.construct_sft.output.manifest,
        output:
            f"{RUN}/checkpoints/r0/checkpoint.json",
        log:
            f"{RUN}/logs/cold_start.log",
        benchmark:
            f"{RUN}/benchmarks/cold_start.tsv"
        conda:
            ENV
        threads: cfg.cold_start.train.threads * cfg.cold_start.train.processes
        resources:
            **get_train_resources(cfg.cold_start.train),
        params:
            *get_code("train"),
            settings=flag("settings", get_settings(cfg.cold_start.train)),
            seed=flag("seed", cfg.seed),
            state=flag("state", f"{RUN}/state/r0"),
        shell:
            "launch --gpus {resources.gpu} --processes {resources.processes} --nodes {resources.nodes} --threads {threads} -- "
            "workflow_scripts.train --data {input.data} --model {input.model} {params.settings} "
            "{params.seed} --round 0 {params.state} --output {output} 2>&1 | tee {log}"
