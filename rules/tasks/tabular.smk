# What rows of tables need beside the rounds: data sets and examples, anchors, the task model, and the scores of rows.


rule split_tables:
    input:
        lambda wildcards: wing.sources(wildcards.table),
    output:
        schema=f"{wing.table('{table}')}/schema.json",
        rows=wing.real_rows("{table}"),
        manifests=manifests(wing.real_rows("{table}")),
    log:
        run.log("split_tables/{table}"),
    benchmark:
        run.benchmark("split_tables/{table}")
    conda:
        ENV
    resources:
        **resources_of.data(),
    params:
        **params_of.stage(
            "split_tables",
            module="tasks.tabular.split_tables",
            name=lambda wildcards: wildcards.table,
            settings=lambda wildcards: settings_of(cfg.tabular.datasets[wildcards.table]),
            test_share=cfg.tabular.test_share,
            seed=cfg.seed,
        ),
    shell:
        commands.stage("tasks.tabular.split_tables", f"--output {wing.table('{wildcards.table}')}")


rule gen_synsft:
    input:
        schemas=[f"{folder}/schema.json" for folder in wing.all_tables],
        rows=[f"{folder}/train.csv" for folder in wing.all_tables],
    output:
        data=f"{wing.examples}/alpaca_train.json",
        test=f"{wing.examples}/alpaca_test.json",
        dataset=directory(f"{wing.examples}/dataset"),
        prompts=wing.prompts,
        manifests=manifests(wing.prompts),
    log:
        run.log("gen_synsft"),
    benchmark:
        run.benchmark("gen_synsft")
    conda:
        ENV
    resources:
        **resources_of.data(),
    params:
        **params_of.stage(
            "gen_synsft",
            module="tasks.tabular.gen_synsft",
            tables=wing.all_tables,
            dataset=cfg.tabular.dataset,
            examples=cfg.tabular.examples,
            own_share=cfg.tabular.own_share,
            seed=cfg.seed,
        ),
    shell:
        commands.stage("tasks.tabular.gen_synsft", f"--output {wing.examples}")


rule gen_scoreanchors:
    input:
        schema=wing.schema,
        rows=wing.real_rows(),
    output:
        rows=wing.anchors,
        manifest=manifests([wing.anchors]),
        prompts=wing.anchor_prompts,
    log:
        run.log("gen_scoreanchors"),
    benchmark:
        run.benchmark("gen_scoreanchors")
    conda:
        ENV
    resources:
        **resources_of.data(),
    params:
        **params_of.stage(
            "gen_scoreanchors",
            module="tasks.tabular.gen_scoreanchors",
            tables=wing.table(),
            num_clusters=cfg.tabular.num_clusters,
            anchors=cfg.tabular.anchors,
            shots=cfg.tabular.shots,
            seed=cfg.seed,
        ),
    shell:
        commands.stage("tasks.tabular.gen_scoreanchors", "--output {output.rows}")


##### the task model: trained on real rows, then in each round on synthetic ones, with a model for each fold #####


rule gen_sftfed:
    input:
        schema=wing.schema,
        rows=wing.real_rows(),
    output:
        clients=wing.client_data(0, ("train", "test")),
        data=wing.task_data(0, "all"),
        manifest=manifests([wing.task_data(0, "all")]),
    log:
        run.log("gen_sftfed/original_0"),
    benchmark:
        run.benchmark("gen_sftfed/original_0")
    conda:
        ENV
    resources:
        **resources_of.data(),
    params:
        **params_of.stage(
            "gen_sftfed",
            module="tasks.tabular.gen_sftfed",
            tables=wing.table(),
            shots=cfg.tabular.shots,
            clients=cfg.tabular.clients,
            alpha=cfg.tabular.alpha,
            task_rows=cfg.tabular.task_rows,
            seed=cfg.seed,
            output=wing.task_folder(0),
        ),
    shell:
        commands.stage("tasks.tabular.gen_sftfed", "")


use rule gen_sftfed as gen_sftfed_train with:
    input:
        schema=wing.schema,
        rows=wing.real_rows(),
        synthetic=wing.synthetic("{n}"),
    output:
        clients=wing.client_data("{n}", ["train"]),
        data=[wing.task_data("{n}", fold) for fold in wing.folds],
        manifests=manifests(wing.task_data("{n}", fold) for fold in wing.folds),
    log:
        run.log("gen_sftfed/r{n}"),
    benchmark:
        run.benchmark("gen_sftfed/r{n}")
    params:
        **params_of.stage(
            "gen_sftfed_train",
            module="tasks.tabular.gen_sftfed",
            tables=wing.table(),
            synthetic=lambda wildcards: wing.synthetic(wildcards.n),
            shots=cfg.tabular.shots,
            clients=cfg.tabular.clients,
            alpha=cfg.tabular.alpha,
            seed=lambda wildcards: cfg.seed + int(wildcards.n),
            output=lambda wildcards: wing.task_folder(wildcards.n),
        ),


rule construct_task_sft:
    input:
        model=run.initial_model,
        file=lambda wildcards: ancient(wing.task_data(wildcards.n, wildcards.fold)),
        manifest=lambda wildcards: manifests([wing.task_data(wildcards.n, wildcards.fold)]),
    output:
        data=wing.task_rows("{n}", "{fold}"),
        manifest=manifests([wing.task_rows("{n}", "{fold}")]),
    log:
        run.log("construct_task_sft/r{n}_{fold}"),
    benchmark:
        run.benchmark("construct_task_sft/r{n}_{fold}")
    wildcard_constraints:
        fold="all|0|1",
    conda:
        ENV
    resources:
        **resources_of.data(),
    params:
        **params_of.stage(
            "construct_task_sft",
            module="construct_sft",
            settings=lambda wildcards: {"file": wing.task_data(wildcards.n, wildcards.fold)},
            template=cfg.full_template,
            seed=cfg.seed,
        ),
    shell:
        commands.stage("construct_sft", "--model {input.model} --output {output.data}")


rule train_task:
    input:
        model=lambda wildcards: wing.task_start(wildcards.n, wildcards.fold),
        data=ancient(rules.construct_task_sft.output.data),
        manifest=rules.construct_task_sft.output.manifest,
    output:
        wing.trained_task_model("{n}", "{fold}"),
    log:
        run.log("train_task/r{n}_{fold}"),
    benchmark:
        run.benchmark("train_task/r{n}_{fold}")
    wildcard_constraints:
        fold="all|0|1",
    conda:
        environments.conda_file(cfg.tabular.train.environment)
    threads: cfg.tabular.train.threads * cfg.tabular.train.processes
    resources:
        **resources_of.training(cfg.tabular.train),
    params:
        **params_of.train("train_task", cfg.tabular.train, seed=cfg.seed),
    shell:
        commands.train(
            cfg.tabular.train,
            "--data {input.data} --model {input.model} --round {wildcards.n} "
            f"--state {run.state('task_r{wildcards.n}_{wildcards.fold}')} --output {{output}}",
        )


if cfg.tabular.merge:

    rule merge_models:
        input:
            before=lambda wildcards: wing.task_start(wildcards.n, wildcards.fold),
            trained=rules.train_task.output,
        output:
            wing.merged_task_model("{n}", "{fold}"),
        log:
            run.log("merge_models/r{n}_{fold}"),
        benchmark:
            run.benchmark("merge_models/r{n}_{fold}")
        wildcard_constraints:
            n=r"[1-9]\d*",
            fold="0|1",
        conda:
            ENV
        resources:
            **resources_of.merge(),
        params:
            **params_of.stage(
                "merge_models",
                module="tasks.tabular.merge_models",
                settings=settings_of(cfg.tabular.merge),
                seed=lambda wildcards: 2 * (cfg.seed + int(wildcards.n)) + int(wildcards.fold),
            ),
        shell:
            commands.stage(
                "tasks.tabular.merge_models",
                "--before {input.before} --trained {input.trained} --output {output}",
            )


##### a round: its answers as rows, their scores, its pairs as other trainers read them, and a plot #####


rule syn_addprompt:
    input:
        data=ancient(run.graded("{n}", "auto")),
        manifests=manifests(run.graded("{n}", "auto")),
        schema=wing.schema,
        rows=wing.real_rows()[0],
        prompts=wing.anchor_prompts,
    output:
        data=wing.raw("{n}"),
        manifest=manifests([wing.raw("{n}")]),
    log:
        run.log("syn_addprompt/r{n}"),
    benchmark:
        run.benchmark("syn_addprompt/r{n}")
    conda:
        ENV
    resources:
        **resources_of.data(),
    params:
        **params_of.stage("syn_addprompt", module="tasks.tabular.syn_addprompt", tables=wing.table()),
    shell:
        commands.stage(
            "tasks.tabular.syn_addprompt",
            "--results {input.data} --prompts {input.prompts} --output {output.data}",
        )


rule raw_to_csv:
    input:
        data=ancient(wing.raw("{n}")),
        manifest=manifests([wing.raw("{n}")]),
        schema=wing.schema,
    output:
        data=wing.synthetic("{n}"),
        manifest=manifests([wing.synthetic("{n}")]),
    log:
        run.log("raw_to_csv/r{n}"),
    benchmark:
        run.benchmark("raw_to_csv/r{n}")
    conda:
        ENV
    resources:
        **resources_of.data(),
    params:
        **params_of.stage("raw_to_csv", module="tasks.tabular.raw_to_csv", copies=cfg.tabular.copies),
    shell:
        commands.stage(
            "tasks.tabular.raw_to_csv",
            "--raw {input.data} --schema {input.schema} --output {output.data}",
        )


rule addscore:
    input:
        data=ancient(wing.raw("{n}")),
        manifest=manifests([wing.raw("{n}")]),
        prompts=wing.anchor_prompts,
        models=lambda wildcards: [wing.task_model(wildcards.n, fold) for fold in wing.folds],
    output:
        data=wing.scores("{n}"),
        manifest=manifests([wing.scores("{n}")]),
    log:
        run.log("addscore/r{n}"),
    benchmark:
        run.benchmark("addscore/r{n}")
    conda:
        ENV
    threads: cfg.logp.threads
    resources:
        **resources_of.scoring(gpus=min(1, cfg.logp.gpus)),
    params:
        **params_of.stage(
            "addscore",
            module="tasks.tabular.addscore",
            settings=settings_of(cfg.logp, "gpus"),
            template=cfg.full_template,
            copies=cfg.tabular.copies,
        ),
    shell:
        commands.stage(
            "tasks.tabular.addscore",
            "--raw {input.data} --prompts {input.prompts} --models {input.models} "
            f"--ledger {run.ledger('addscore/r{wildcards.n}')} --output {{output.data}}",
            gpu=True,
        )


rule gen_dpo:
    input:
        data=ancient(run.data("{n}")),
        manifest=manifests([run.data("{n}")]),
    output:
        folder=directory(wing.preference_dataset("{n}")),
        data=wing.preferences("{n}"),
        manifest=manifests([wing.preferences("{n}")]),
    log:
        run.log("gen_dpo/r{n}"),
    benchmark:
        run.benchmark("gen_dpo/r{n}")
    conda:
        ENV
    resources:
        **resources_of.data(),
    params:
        **params_of.stage("gen_dpo", module="tasks.tabular.gen_dpo"),
    shell:
        commands.stage("tasks.tabular.gen_dpo", "--data {input.data} --folder {output.folder} --output {output.data}")


rule plot_tables:
    input:
        metrics=run.evaluation("{n}"),
        schema=wing.schema,
    output:
        report(
            wing.plot("{n}"),
            category="Tables",
            labels={"figure": "synthetic rows, round {n}"},
            caption="../../report/table.rst",
        ),
    log:
        run.log("plot_tables/r{n}"),
    benchmark:
        run.benchmark("plot_tables/r{n}")
    conda:
        ENV
    resources:
        **resources_of.data(),
    params:
        **params_of.stage("plot_tables", module="tasks.tabular.plot_tables"),
    shell:
        commands.stage(
            "tasks.tabular.plot_tables", "--metrics {input.metrics} --schema {input.schema} --output {output}"
        )
