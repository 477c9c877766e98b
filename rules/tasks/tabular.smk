# These rules are for tables only: data sets and examples, anchors, task models, and the scores of rows.


# `own` tells the task models of several tables apart; with one table it is empty.
wildcard_constraints:
    table="|".join(cfg.tabular.datasets),
    own=wing.own_pattern,
    fold="all|0|1",
    t=r"[1-9]\d*",


rule split_tables:
    input:
        lambda wildcards: wing.sources(wildcards.table),
    output:
        schema=wing.schema("{table}"),
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
        commands.stage("tasks.tabular.split_tables", f"--output {wing.folder('{wildcards.table}')}")


if wing.with_val:

    use rule split_tables as split_tables_with_val with:
        output:
            schema=wing.schema("{table}"),
            rows=[*wing.real_rows("{table}"), f"{wing.folder('{table}')}/val.csv"],
            manifests=manifests([*wing.real_rows("{table}"), f"{wing.folder('{table}')}/val.csv"]),
        wildcard_constraints:
            table="|".join(wing.with_val),

    ruleorder: split_tables_with_val > split_tables


rule gen_synsft:
    input:
        schemas=[f"{folder}/schema.json" for folder in wing.all_folders],
        rows=[f"{folder}/train.csv" for folder in wing.all_folders],
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
            tables=wing.all_folders,
            dataset=wing.tables,
            examples=cfg.tabular.examples,
            own_share=cfg.tabular.own_share,
            seed=cfg.seed,
        ),
    shell:
        commands.stage("tasks.tabular.gen_synsft", f"--output {wing.examples}")


rule gen_scoreanchors:
    input:
        schema=wing.schema("{table}"),
        rows=wing.real_rows("{table}"),
    output:
        rows=wing.anchors("{table}"),
        manifest=manifests([wing.anchors("{table}")]),
        prompts=wing.anchor_prompts("{table}"),
    log:
        run.log("gen_scoreanchors/{table}"),
    benchmark:
        run.benchmark("gen_scoreanchors/{table}")
    conda:
        ENV
    resources:
        **resources_of.data(),
    params:
        **params_of.stage(
            "gen_scoreanchors",
            module="tasks.tabular.gen_scoreanchors",
            tables=lambda wildcards: wing.folder(wildcards.table),
            num_clusters=cfg.tabular.num_clusters,
            anchors=cfg.tabular.anchors,
            shots=cfg.tabular.shots,
            seed=cfg.seed,
        ),
    shell:
        commands.stage("tasks.tabular.gen_scoreanchors", "--output {output.rows}")


##### task models: trained on real rows, then in each round on synthetic ones, for each fold, and by clients if there are #####


rule gen_sftfed:
    input:
        schema=wing.schema("{table}"),
        rows=wing.real_rows("{table}"),
        val=lambda wildcards: wing.val_rows(wildcards.table),
    output:
        data=wing.all_task_data(0, "{table}"),
        manifests=manifests(wing.all_task_data(0, "{table}")),
        checks=wing.all_checks("{table}"),
    log:
        run.log("gen_sftfed/original_0_{table}"),
    benchmark:
        run.benchmark("gen_sftfed/original_0_{table}")
    conda:
        ENV
    resources:
        **resources_of.data(),
    params:
        **params_of.stage(
            "gen_sftfed",
            module="tasks.tabular.gen_sftfed",
            tables=lambda wildcards: wing.folder(wildcards.table),
            task_rows=cfg.tabular.task_rows,
            seed=cfg.seed,
            output=wing.task_folder(0),
            **wing.of_clients,
        ),
    shell:
        commands.stage("tasks.tabular.gen_sftfed", "")


use rule gen_sftfed as gen_sftfed_train with:
    input:
        schema=wing.schema("{table}"),
        rows=wing.real_rows("{table}"),
        synthetic=wing.synthetic("{n}", "{table}"),
    output:
        data=wing.all_task_data("{n}", "{table}"),
        manifests=manifests(wing.all_task_data("{n}", "{table}")),
    log:
        run.log("gen_sftfed/r{n}_{table}"),
    benchmark:
        run.benchmark("gen_sftfed/r{n}_{table}")
    params:
        **params_of.stage(
            "gen_sftfed_train",
            module="tasks.tabular.gen_sftfed",
            tables=lambda wildcards: wing.folder(wildcards.table),
            synthetic=lambda wildcards: wing.synthetic(wildcards.n, wildcards.table),
            seed=lambda wildcards: cfg.seed + int(wildcards.n),
            output=lambda wildcards: wing.task_folder(wildcards.n),
            **wing.of_clients,
        ),


rule construct_task_sft:
    input:
        model=run.initial_model,
        file=lambda wildcards: ancient(wing.task_file(wildcards)),
        manifest=lambda wildcards: manifests([wing.task_file(wildcards)]),
    output:
        data=wing.task_rows("{own}r{n}_{fold}{part}"),
        manifest=manifests([wing.task_rows("{own}r{n}_{fold}{part}")]),
    log:
        run.log("construct_task_sft/{own}r{n}_{fold}{part}"),
    benchmark:
        run.benchmark("construct_task_sft/{own}r{n}_{fold}{part}")
    wildcard_constraints:
        part=r"(?:_client_\d+)?",
    conda:
        ENV
    resources:
        **resources_of.data(),
    params:
        **params_of.stage(
            "construct_task_sft",
            module="construct_sft",
            settings=lambda wildcards: {"file": wing.task_file(wildcards)},
            template=cfg.full_template,
            seed=cfg.seed,
        ),
    shell:
        commands.stage("construct_sft", "--model {input.model} --output {output.data}")


# With several clients, {part} is such as _t1_client_2: the communication round and the client.
rule train_task:
    input:
        model=lambda wildcards: wing.task_beginning(wildcards),
        data=lambda wildcards: ancient(wing.rows_of_part(wildcards)),
        manifest=lambda wildcards: manifests([wing.rows_of_part(wildcards)]),
    output:
        wing.task_checkpoint("{own}r{n}_{fold}{part}"),
    log:
        run.log("train_task/{own}r{n}_{fold}{part}"),
    benchmark:
        run.benchmark("train_task/{own}r{n}_{fold}{part}")
    wildcard_constraints:
        part=r"(?:_t\d+_client_\d+)?",
    conda:
        environments.conda_file(cfg.tabular.train.environment)
    threads: cfg.tabular.train.threads * cfg.tabular.train.processes
    resources:
        **resources_of.training(cfg.tabular.train),
    params:
        **params_of.train(
            "train_task", cfg.tabular.train, seed=lambda wildcards: cfg.seed + wing.communication_round(wildcards)
        ),
    shell:
        commands.train(
            cfg.tabular.train,
            "--data {input.data} --model {input.model} --round {wildcards.n} "
            f"--state {run.state('task_{wildcards.own}r{wildcards.n}_{wildcards.fold}{wildcards.part}')} "
            "--output {output}",
        )


rule merge_clients:
    input:
        before=lambda wildcards: wing.fed_start(wildcards.n, wildcards.fold, wildcards.t, wing.table_of(wildcards.own)),
        trained=lambda wildcards: wing.merged_clients(wildcards.n, wildcards.fold, wildcards.t, wildcards.own),
    output:
        wing.task_checkpoint("{own}r{n}_{fold}_t{t}"),
    log:
        run.log("merge_clients/{own}r{n}_{fold}_t{t}"),
    benchmark:
        run.benchmark("merge_clients/{own}r{n}_{fold}_t{t}")
    conda:
        ENV
    resources:
        **resources_of.merge(len(wing.merged_clients(1, "0", 1, ""))),
    params:
        **params_of.stage(
            "merge_clients",
            module="tasks.tabular.merge_models",
            settings=settings_of(cfg.tabular.fed_merge),
            seed=lambda wildcards: cfg.seed + int(wildcards.n) + int(wildcards.t),
        ),
    shell:
        commands.stage(
            "tasks.tabular.merge_models",
            "--before {input.before} --trained {input.trained} --output {output}",
        )


if cfg.tabular.merge:

    use rule merge_clients as merge_models with:
        input:
            before=lambda wildcards: wing.task_start(wildcards.n, wildcards.fold, wing.table_of(wildcards.own)),
            trained=lambda wildcards: wing.trained_task_model(wildcards.n, wildcards.fold, wing.table_of(wildcards.own)),
        output:
            wing.merged_task_model("{n}", "{fold}", "{own}"),
        log:
            run.log("merge_models/{own}r{n}_{fold}"),
        benchmark:
            run.benchmark("merge_models/{own}r{n}_{fold}")
        wildcard_constraints:
            n=r"[1-9]\d*",
            fold="0|1",
        resources:
            **resources_of.merge(1),
        params:
            **params_of.stage(
                "merge_models",
                module="tasks.tabular.merge_models",
                settings=settings_of(cfg.tabular.merge),
                seed=lambda wildcards: 2 * (cfg.seed + int(wildcards.n)) + int(wildcards.fold),
            ),


if cfg.tabular.task_model:

    use rule init_model as link_task_model with:
        input:
            model_files(cfg.tabular.task_model),
        output:
            wing.existing_task_model,
        log:
            run.log("link_task_model"),
        benchmark:
            run.benchmark("link_task_model")
        params:
            **params_of.stage(
                "link_task_model",
                module="init_model",
                parts=(),
                task=cfg.task,
                settings={"path": cfg.tabular.task_model},
                template=cfg.full_template,
                seed=cfg.seed,
            ),


rule evaluate_task:
    input:
        model=lambda wildcards: wing.task_model(wildcards.n, wildcards.fold, wing.table_of(wildcards.own)),
        clients=lambda wildcards: wing.last_client_models(wildcards.n, wildcards.fold, wing.table_of(wildcards.own)),
        prompts=lambda wildcards: wing.anchor_prompts(wing.table_of(wildcards.own)),
        test=lambda wildcards: wing.checks("test", wing.table_of(wildcards.own)),
        held_out=lambda wildcards: wing.checks("val", wing.table_of(wildcards.own)),
    output:
        wing.task_metrics("{n}", "{fold}", "{own}"),
    log:
        run.log("evaluate_task/{own}r{n}_{fold}"),
    benchmark:
        run.benchmark("evaluate_task/{own}r{n}_{fold}")
    conda:
        ENV
    threads: cfg.logp.threads
    resources:
        **resources_of.scoring(gpus=min(1, cfg.logp.gpus)),
    params:
        **params_of.stage(
            "evaluate_task",
            module="tasks.tabular.evaluate_task",
            settings=settings_of(cfg.logp, "gpus"),
            template=cfg.full_template,
        ),
    shell:
        commands.stage(
            "tasks.tabular.evaluate_task",
            "--model {input.model} --clients {input.clients} --prompts {input.prompts} --test {input.test} "
            "--held-out {input.held_out} --output {output}",
            gpu=True,
        )


##### a round: its answers as rows, their scores, its pairs as other trainers read them, and a plot #####


rule syn_addprompt:
    input:
        data=ancient(run.graded("{n}", "auto")),
        manifests=manifests(run.graded("{n}", "auto")),
        schema=wing.schema("{table}"),
        rows=wing.real_rows("{table}")[0],
        prompts=wing.anchor_prompts("{table}"),
    output:
        data=wing.raw("{n}", "{table}"),
        manifest=manifests([wing.raw("{n}", "{table}")]),
    log:
        run.log("syn_addprompt/r{n}_{table}"),
    benchmark:
        run.benchmark("syn_addprompt/r{n}_{table}")
    conda:
        ENV
    resources:
        **resources_of.data(),
    params:
        **params_of.stage(
            "syn_addprompt",
            module="tasks.tabular.syn_addprompt",
            tables=lambda wildcards: wing.folder(wildcards.table),
        ),
    shell:
        commands.stage(
            "tasks.tabular.syn_addprompt",
            "--results {input.data} --prompts {input.prompts} --output {output.data}",
        )


rule raw_to_csv:
    input:
        data=ancient(wing.raw("{n}", "{table}")),
        manifest=manifests([wing.raw("{n}", "{table}")]),
        schema=wing.schema("{table}"),
    output:
        data=wing.synthetic("{n}", "{table}"),
        manifest=manifests([wing.synthetic("{n}", "{table}")]),
    log:
        run.log("raw_to_csv/r{n}_{table}"),
    benchmark:
        run.benchmark("raw_to_csv/r{n}_{table}")
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
        data=ancient(wing.raw("{n}", "{table}")),
        manifest=manifests([wing.raw("{n}", "{table}")]),
        prompts=wing.anchor_prompts("{table}"),
        models=lambda wildcards: [wing.task_model(wildcards.n, fold, wildcards.table) for fold in wing.folds],
    output:
        data=wing.scores("{n}", "{table}"),
        manifest=manifests([wing.scores("{n}", "{table}")]),
    log:
        run.log("addscore/r{n}_{table}"),
    benchmark:
        run.benchmark("addscore/r{n}_{table}")
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
            f"--ledger {run.ledger('addscore/r{wildcards.n}_{wildcards.table}')} --output {{output.data}}",
            gpu=True,
        )


rule gen_dpo:
    input:
        data=ancient(run.data("{n}")),
        manifest=manifests([run.data("{n}")]),
    output:
        folder=directory(wing.preference_dataset("{n}", "{table}")),
        data=wing.preferences("{n}", "{table}"),
        manifest=manifests([wing.preferences("{n}", "{table}")]),
    log:
        run.log("gen_dpo/r{n}_{table}"),
    benchmark:
        run.benchmark("gen_dpo/r{n}_{table}")
    conda:
        ENV
    resources:
        **resources_of.data(),
    params:
        **params_of.stage("gen_dpo", module="tasks.tabular.gen_dpo"),
    shell:
        commands.stage(
            "tasks.tabular.gen_dpo",
            "--data {input.data} --table {wildcards.table} --folder {output.folder} --output {output.data}",
        )


rule plot_tables:
    input:
        metrics=run.evaluation("{n}"),
        schema=lambda wildcards: wing.schema(wing.table_of(wildcards.own)),
        task=lambda wildcards: wing.task_metrics_of_round(wildcards.n, wing.table_of(wildcards.own)),
    output:
        report(
            wing.plot("{n}", "{own}"),
            category="Tables",
            labels={"figure": "synthetic rows, {own}round {n}"},
            caption="../../report/table.rst",
        ),
    log:
        run.log("plot_tables/{own}r{n}"),
    benchmark:
        run.benchmark("plot_tables/{own}r{n}")
    conda:
        ENV
    resources:
        **resources_of.data(),
    params:
        **params_of.stage("plot_tables", module="tasks.tabular.plot_tables", min_signal=cfg.tabular.min_signal or None),
    shell:
        commands.stage(
            "tasks.tabular.plot_tables",
            "--metrics {input.metrics} --task-metrics {input.task} --schema {input.schema} --output {output}",
        )
