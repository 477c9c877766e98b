# A round's data is scored under the checkpoint that training starts from (and, if the objective compares with a
# reference, under that), and training makes the next checkpoint.


rule logp:
    input:
        data=ancient(run.data("{n}")),
        manifest=manifests([run.data("{n}")]),
        model=lambda wildcards: run.scored_checkpoint(wildcards.n),
    output:
        data=f"{run.logp_folder('{n}')}/{{shard}}.pkl",
        manifest=f"{run.logp_folder('{n}')}/{{shard}}.json",
    log:
        run.log("logp/r{n}_{shard}"),
    benchmark:
        run.benchmark("logp/r{n}_{shard}")
    wildcard_constraints:
        n=none_of(run.rounds_with_logps),
    conda:
        ENV
    threads: cfg.logp.threads * max(1, cfg.logp.gpus)
    resources:
        **resources_of.scoring(),
    params:
        **params_of.logp("logp"),
    shell:
        commands.stage(
            "logp",
            "--data {input.data} --model {input.model} --shard {wildcards.shard} --output {output.data}",
            gpu=True,
            process_per_gpu=True,
        )


if run.rounds_with_logps:

    rule import_logp:
        input:
            data=ancient(run.data("{n}")),
            manifest=manifests([run.data("{n}")]),
            model=lambda wildcards: run.scored_checkpoint(wildcards.n),
            source=lambda wildcards: cfg.rows[int(wildcards.n)].file,
            existing=lambda wildcards: logp_files(cfg.rows[int(wildcards.n)].logp),
        output:
            data=f"{run.logp_folder('{n}')}/{{shard}}.pkl",
            manifest=f"{run.logp_folder('{n}')}/{{shard}}.json",
        log:
            run.log("import_logp/r{n}_{shard}"),
        benchmark:
            run.benchmark("import_logp/r{n}_{shard}")
        wildcard_constraints:
            n=one_of(run.rounds_with_logps),
        conda:
            ENV
        threads: cfg.logp.threads * max(1, cfg.logp.gpus)
        resources:
            **resources_of.scoring(),
        params:
            **params_of.logp("import_logp", "import_logp", existing=lambda wildcards: cfg.rows[int(wildcards.n)].logp),
        shell:
            commands.stage(
                "import_logp",
                "--data {input.data} --source {input.source:q} --model {input.model} --shard {wildcards.shard} "
                "--output {output.data}",
                gpu=True,
                process_per_gpu=True,
            )


if not cfg.data.source:

    use rule logp as ref_logp with:
        input:
            data=ancient(run.data("{n}")),
            manifest=manifests([run.data("{n}")]),
            model=run.checkpoint(0),
        output:
            data=f"{run.reference_folder('{n}')}/{{shard}}.pkl",
            manifest=f"{run.reference_folder('{n}')}/{{shard}}.json",
        log:
            run.log("ref_logp/r{n}_{shard}"),
        benchmark:
            run.benchmark("ref_logp/r{n}_{shard}")
        params:
            **params_of.logp("ref_logp"),


rule train:
    input:
        unpack(stored_logps),
        data=lambda wildcards: ancient(run.data(wildcards.n)),
        manifest=lambda wildcards: manifests([run.data(wildcards.n)]),
        answers=lambda wildcards: ancient(run.compared_answers(wildcards.n)),
        answers_manifests=lambda wildcards: manifests(run.compared_answers(wildcards.n)),
        model=policy,
    output:
        f"{run.folder}/checkpoints/r{{n}}/checkpoint.json",
    log:
        run.log("train/r{n}"),
    benchmark:
        run.benchmark("train/r{n}")
    wildcard_constraints:
        n=r"[1-9]\d*",  # a job on a cluster knows its own rule only, and would make round 0 by this one
    conda:
        environments.conda_file(cfg.train.environment)
    threads: cfg.train.threads * cfg.train.processes
    resources:
        **resources_of.training(cfg.train),
    params:
        **params_of.train(
            "train",
            cfg.train,
            seed=lambda wildcards: cfg.seed + int(wildcards.n),
            rounds=cfg.rounds if cfg.train.schedule_over == "rounds" else None,
        ),
        logps=params_of.stored_logps,
    shell:
        commands.train(
            cfg.train,
            "--data {input.data} --model {input.model} --round {wildcards.n} "
            f"--state {run.state('r{wildcards.n}')} --output {{output}}",
        )
