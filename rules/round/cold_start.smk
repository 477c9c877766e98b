# Round 0: the model as it came, or made from scratch, and its supervised cold start.

if cfg.model.scratch or not rehearsal.recipe:  # else a stand-in takes the model's place (rehearsal.smk)

    rule init_model:
        input:
            model_files(cfg.model.path),
            local_input(cfg.cold_start.file) if cfg.model.scratch else [],  # the tokenizer learns its texts
        output:
            run.initial_model,
        log:
            run.log("init_model"),
        benchmark:
            run.benchmark("init_model")
        localrule: is_model_on_hub(cfg)  # nodes of a cluster often have no way to the internet
        conda:
            ENV
        resources:
            **resources_of.model(),
        params:
            **params_of.stage(
                "init_model",
                parts=None if cfg.model.scratch else (),
                task=cfg.task,
                settings=settings_of(cfg.model),
                cold_start=settings_of(cfg.cold_start, "train") if cfg.model.scratch else None,
                template=cfg.full_template,
                seed=cfg.seed,
            ),
        shell:
            commands.stage("init_model", "--output {output}")


if cfg.cold_start:

    rule construct_sft:
        input:
            model=run.initial_model,
            file=local_input(cfg.cold_start.file),
            avoid=run.prompts_to_avoid if cfg.cold_start.file else [],
        output:
            data=run.cold_start_data,
            manifest=manifests([run.cold_start_data]),
        log:
            run.log("construct_sft"),
        benchmark:
            run.benchmark("construct_sft")
        conda:
            ENV
        resources:
            **resources_of.data(),
        params:
            **(params_of.rows if cfg.cold_start.file else params_of.stage)(
                "construct_sft",
                settings=settings_of(cfg.cold_start, "train"),
                template=cfg.full_template,
                seed=cfg.seed,
            ),
        shell:
            commands.stage(
                "construct_sft", "--model {input.model} --eval-prompts {input.avoid:q} --output {output.data}"
            )

    rule cold_start:
        input:
            model=run.initial_model,
            data=ancient(rules.construct_sft.output.data),
            manifest=rules.construct_sft.output.manifest,
        output:
            run.checkpoint(0),
        log:
            run.log("cold_start"),
        benchmark:
            run.benchmark("cold_start")
        conda:
            environments.conda_file(cfg.cold_start.train.environment)
        threads: cfg.cold_start.train.threads * cfg.cold_start.train.processes
        resources:
            **resources_of.training(cfg.cold_start.train),
        params:
            **params_of.train("cold_start", cfg.cold_start.train, seed=cfg.seed),
        shell:
            commands.train(
                cfg.cold_start.train,
                "--data {input.data} --model {input.model} --round 0 "
                f"--state {run.state('r0')} --output {{output}}",
            )
