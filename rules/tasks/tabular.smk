# What rows of tables need beside the rounds: data sets and their examples, anchors, the task model, and rows' scores.

if cfg.tabular:

    TABLES = {name: f"{RUN}/datasets/{name}" for name in cfg.tabular.datasets}
    TABLE = TABLES[cfg.tabular.dataset]
    SYN = f"{RUN}/syn_datasets/sft_syn_{cfg.tabular.dataset}"
    ANCHORS = f"{RUN}/score_anchors/{cfg.tabular.dataset}"

    rule split_tables:
        input:
            lambda wildcards: get_table_files(wildcards.table),
        output:
            schema=f"{RUN}/datasets/{{table}}/schema.json",
            splits=expand(
                f"{RUN}/datasets/{{{{table}}}}/{{split}}.{{kind}}", split=["train", "test"], kind=["csv", "json"]
            ),
        log:
            f"{RUN}/logs/split_tables/{{table}}.log",
        benchmark:
            f"{RUN}/benchmarks/split_tables/{{table}}.tsv"
        conda:
            ENV
        resources:
            **get_data_resources(),
        params:
            *get_code("split_tables"),
            name=lambda wildcards: flag("name", wildcards.table),
            settings=lambda wildcards: flag("settings", get_settings(cfg.tabular.datasets[wildcards.table])),
            share=flag("test-share", cfg.tabular.test_share),
            seed=flag("seed", cfg.seed),
            output=lambda wildcards: flag("output", TABLES[wildcards.table]),
        shell:
            "python -m workflow_scripts.split_tables {params.name} {params.settings} {params.share} {params.seed} "
            "{params.output} 2>&1 | tee {log}"

    rule gen_synsft:
        input:
            schemas=[f"{folder}/schema.json" for folder in TABLES.values()],
            rows=[f"{folder}/train.csv" for folder in TABLES.values()],
        output:
            data=f"{SYN}/alpaca_train.json",
            test=f"{SYN}/alpaca_test.json",
            dataset=directory(f"{SYN}/dataset"),
            prompts=[f"{SYN}/{split}.{kind}" for split in ("train", "eval") for kind in ("jsonl", "json")],
        log:
            f"{RUN}/logs/gen_synsft.log",
        benchmark:
            f"{RUN}/benchmarks/gen_synsft.tsv"
        conda:
            ENV
        resources:
            **get_data_resources(),
        params:
            *get_code("gen_synsft"),
            tables="--tables " + " ".join(TABLES.values()),
            settings=flag("settings", get_tabular_settings("examples", "own_share")),
            seed=flag("seed", cfg.seed),
            output=flag("output", SYN),
        shell:
            "python -m workflow_scripts.gen_synsft {params.tables} {params.settings} {params.seed} {params.output} "
            "2>&1 | tee {log}"

    rule gen_scoreanchors:
        input:
            schema=f"{TABLE}/schema.json",
            rows=[f"{TABLE}/train.csv", f"{TABLE}/test.csv"],
        output:
            rows=f"{ANCHORS}_anchors.csv",
            manifest=f"{ANCHORS}_anchors.json",
            prompts=f"{ANCHORS}_prompts.json",
        log:
            f"{RUN}/logs/gen_scoreanchors.log",
        benchmark:
            f"{RUN}/benchmarks/gen_scoreanchors.tsv"
        conda:
            ENV
        resources:
            **get_data_resources(),
        params:
            *get_code("gen_scoreanchors"),
            tables=flag("tables", TABLE),
            settings=flag("settings", get_tabular_settings("num_clusters", "anchors", "shots")),
            seed=flag("seed", cfg.seed),
        shell:
            "python -m workflow_scripts.gen_scoreanchors {params.tables} {params.settings} {params.seed} "
            "--output {output.rows} 2>&1 | tee {log}"

    rule gen_sftfed:
        input:
            schema=f"{TABLE}/schema.json",
            rows=[f"{TABLE}/train.csv", f"{TABLE}/test.csv"],
        output:
            clients=get_client_files("original_0", ["train", "test"]),
            folds=[f"{get_fold_file('original_0', 'all')}.{kind}" for kind in ("jsonl", "json")],
        log:
            f"{RUN}/logs/gen_sftfed/original_0.log",
        benchmark:
            f"{RUN}/benchmarks/gen_sftfed/original_0.tsv"
        conda:
            ENV
        resources:
            **get_data_resources(),
        params:
            *get_code("gen_sftfed"),
            tables=flag("tables", TABLE),
            synthetic="",
            settings=flag("settings", get_tabular_settings("shots", "clients", "alpha", "task_rows")),
            seed=flag("seed", cfg.seed),
            output=flag("output", f"{RUN}/syned_datasets/original_0_sft_fed"),
        shell:
            "python -m workflow_scripts.gen_sftfed {params.tables} {params.synthetic} {params.settings} {params.seed} "
            "{params.output} 2>&1 | tee {log}"

    use rule gen_sftfed as gen_sftfed_train with:
        input:
            schema=f"{TABLE}/schema.json",
            rows=[f"{TABLE}/train.csv", f"{TABLE}/test.csv"],
            synthetic=f"{RUN}/r{{n}}_csv/{cfg.tabular.dataset}.train.csv",
        output:
            clients=get_client_files("r{n}", ["train"]),
            folds=[f"{get_fold_file('r{n}', fold)}.{kind}" for fold in (0, 1) for kind in ("jsonl", "json")],
        log:
            f"{RUN}/logs/gen_sftfed/r{{n}}.log",
        benchmark:
            f"{RUN}/benchmarks/gen_sftfed/r{{n}}.tsv"
        params:
            *get_code("gen_sftfed"),
            tables=flag("tables", TABLE),
            synthetic=lambda wildcards: flag("synthetic", f"{RUN}/r{wildcards.n}_csv/{cfg.tabular.dataset}.train.csv"),
            settings=flag("settings", get_tabular_settings("shots", "clients", "alpha", "task_rows")),
            seed=lambda wildcards: flag("seed", cfg.seed + int(wildcards.n)),
            output=lambda wildcards: flag("output", f"{RUN}/syned_datasets/r{wildcards.n}_sft_fed"),

    ##### the task model: trained on real rows, then in each round on synthetic ones, a model per fold #####
    rule construct_task_sft:
        input:
            model=f"{RUN}/checkpoints/init/checkpoint.json",
            file=lambda wildcards: f"{get_task_data(wildcards)}.jsonl",
        output:
            data=f"{RUN}/data/task_r{{n}}_{{fold}}.pkl",
            manifest=f"{RUN}/data/task_r{{n}}_{{fold}}.json",
        log:
            f"{RUN}/logs/construct_task_sft/r{{n}}_{{fold}}.log",
        benchmark:
            f"{RUN}/benchmarks/construct_task_sft/r{{n}}_{{fold}}.tsv"
        wildcard_constraints:
            fold="all|0|1",
        conda:
            ENV
        resources:
            **get_data_resources(),
        params:
            *get_code("construct_sft", task=True),
            task=flag("task", cfg.task),
            settings=lambda wildcards: flag("settings", json.dumps({"file": f"{get_task_data(wildcards)}.jsonl"})),
            template=flag("template", cfg.template),
            seed=flag("seed", cfg.seed),
        shell:
            "python -m workflow_scripts.construct_sft {params.task} {params.settings} {params.template} {params.seed} "
            "--model {input.model} --output {output.data} 2>&1 | tee {log}"

    rule train_task:
        input:
            model=get_task_start,
            data=ancient(rules.construct_task_sft.output.data),
            manifest=rules.construct_task_sft.output.manifest,
        output:
            f"{RUN}/checkpoints/task_r{{n}}_{{fold}}/checkpoint.json",
        log:
            f"{RUN}/logs/train_task/r{{n}}_{{fold}}.log",
        benchmark:
            f"{RUN}/benchmarks/train_task/r{{n}}_{{fold}}.tsv"
        wildcard_constraints:
            fold="all|0|1",
        conda:
            ENV
        threads: cfg.tabular.train.threads * cfg.tabular.train.processes
        resources:
            **get_train_resources(cfg.tabular.train),
        params:
            *get_code("train"),
            settings=flag("settings", get_settings(cfg.tabular.train)),
            seed=flag("seed", cfg.seed),
            state=lambda wildcards: flag("state", f"{RUN}/state/task_r{wildcards.n}_{wildcards.fold}"),
        shell:
            "launch --gpus {resources.gpu} --processes {resources.processes} --nodes {resources.nodes} --threads {threads} -- "
            "workflow_scripts.train --data {input.data} --model {input.model} {params.settings} "
            "{params.seed} --round {wildcards.n} {params.state} --output {output} 2>&1 | tee {log}"

    if cfg.tabular.merge:

        rule merge_models:
            input:
                before=get_task_start,
                trained=rules.train_task.output,
            output:
                f"{RUN}/checkpoints/merged_r{{n}}_{{fold}}/checkpoint.json",
            log:
                f"{RUN}/logs/merge_models/r{{n}}_{{fold}}.log",
            benchmark:
                f"{RUN}/benchmarks/merge_models/r{{n}}_{{fold}}.tsv"
            wildcard_constraints:
                n=r"[1-9]\d*",
                fold="0|1",
            conda:
                ENV
            resources:
                **by_attempt(sizes.of_merge),
            params:
                *get_code("merge_models"),
                settings=flag("settings", get_settings(cfg.tabular.merge)),
                seed=lambda wildcards: flag("seed", 2 * (cfg.seed + int(wildcards.n)) + int(wildcards.fold)),
            shell:
                "python -m workflow_scripts.merge_models --before {input.before} --trained {input.trained} "
                "{params.settings} {params.seed} --output {output} 2>&1 | tee {log}"

    ##### a round: its answers as rows, their scores, and the pairs as others train on them #####
    rule syn_addprompt:
        input:
            data=ancient([f"{RUN}/results/r{{n}}/auto/{rank}_matchlog.pkl" for rank in RANKS]),
            manifests=[f"{RUN}/results/r{{n}}/auto/{rank}_matchlog.json" for rank in RANKS],
            tables=[f"{TABLE}/schema.json", f"{TABLE}/train.csv"],
            prompts=rules.gen_scoreanchors.output.prompts,
        output:
            data=f"{RUN}/r{{n}}_raw/{cfg.tabular.dataset}.raw.jsonl",
            manifest=f"{RUN}/r{{n}}_raw/{cfg.tabular.dataset}.raw.json",
        log:
            f"{RUN}/logs/syn_addprompt/r{{n}}.log",
        benchmark:
            f"{RUN}/benchmarks/syn_addprompt/r{{n}}.tsv"
        conda:
            ENV
        resources:
            **get_data_resources(),
        params:
            *get_code("syn_addprompt"),
            tables=flag("tables", TABLE),
        shell:
            "python -m workflow_scripts.syn_addprompt {params.tables} --results {input.data} --prompts {input.prompts} "
            "--output {output.data} 2>&1 | tee {log}"

    rule raw_to_csv:
        input:
            data=ancient(rules.syn_addprompt.output.data),
            manifest=rules.syn_addprompt.output.manifest,
            schema=f"{TABLE}/schema.json",
        output:
            data=f"{RUN}/r{{n}}_csv/{cfg.tabular.dataset}.train.csv",
            manifest=f"{RUN}/r{{n}}_csv/{cfg.tabular.dataset}.train.json",
        log:
            f"{RUN}/logs/raw_to_csv/r{{n}}.log",
        benchmark:
            f"{RUN}/benchmarks/raw_to_csv/r{{n}}.tsv"
        conda:
            ENV
        resources:
            **get_data_resources(),
        params:
            *get_code("raw_to_csv"),
            copies=flag("copies", cfg.tabular.copies),
        shell:
            "python -m workflow_scripts.raw_to_csv --raw {input.data} --schema {input.schema} {params.copies} "
            "--output {output.data} 2>&1 | tee {log}"

    rule addscore:
        input:
            data=ancient(rules.syn_addprompt.output.data),
            manifest=rules.syn_addprompt.output.manifest,
            prompts=rules.gen_scoreanchors.output.prompts,
            models=lambda wildcards: [get_task_model(int(wildcards.n), fold) for fold in (0, 1)],
        output:
            data=f"{RUN}/r{{n}}_score/{cfg.tabular.dataset}.score.jsonl",
            manifest=f"{RUN}/r{{n}}_score/{cfg.tabular.dataset}.score.json",
        log:
            f"{RUN}/logs/addscore/r{{n}}.log",
        benchmark:
            f"{RUN}/benchmarks/addscore/r{{n}}.tsv"
        conda:
            ENV
        threads: cfg.logp.threads
        resources:
            **by_attempt(sizes.of_scoring),
            gpu=min(1, cfg.logp.gpus),
            nodes=1,
        params:
            *get_code("addscore"),
            settings=flag("settings", get_settings(cfg.logp, "gpus")),
            template=flag("template", cfg.template),
            copies=flag("copies", cfg.tabular.copies),
            ledger=lambda wildcards: flag("ledger", f"{RUN}/ledger/addscore/r{wildcards.n}"),
        shell:
            "launch --gpus {resources.gpu} -- workflow_scripts.addscore {params.settings} {params.template} "
            "{params.copies} --raw {input.data} --prompts {input.prompts} --models {input.models} {params.ledger} "
            "--output {output.data} 2>&1 | tee {log}"

    rule gen_dpo:
        input:
            data=ancient(f"{get_data('{n}')}.pkl"),
            manifest=f"{get_data('{n}')}.json",
        output:
            folder=directory(f"{RUN}/r{{n}}_dpo/{cfg.tabular.dataset}"),
            data=f"{RUN}/r{{n}}_dpo/{cfg.tabular.dataset}.pref.jsonl",
            manifest=f"{RUN}/r{{n}}_dpo/{cfg.tabular.dataset}.pref.json",
        log:
            f"{RUN}/logs/gen_dpo/r{{n}}.log",
        benchmark:
            f"{RUN}/benchmarks/gen_dpo/r{{n}}.tsv"
        conda:
            ENV
        resources:
            **get_data_resources(),
        params:
            *get_code("gen_dpo"),
        shell:
            "python -m workflow_scripts.gen_dpo --data {input.data} --folder {output.folder} --output {output.data} "
            "2>&1 | tee {log}"

    ruleorder: table_report > evaluate

    rule table_report:
        input:
            data=ancient([f"{RUN}/evaluation/r{{n}}/{rank}_matchlog.pkl" for rank in RANKS]),
            manifests=[f"{RUN}/evaluation/r{{n}}/{rank}_matchlog.json" for rank in RANKS],
            tables=[f"{TABLE}/schema.json", f"{TABLE}/train.csv", f"{TABLE}/test.csv"],
            anchors=rules.gen_scoreanchors.output.rows if cfg.tabular.anchors == "test" else [],
        output:
            figures=f"{RUN}/evaluation/r{{n}}.json",
            plot=report(
                f"{RUN}/report/table_r{{n}}.svg",
                category="Tables",
                labels={"figure": "synthetic rows, round {n}"},
                caption="../report/table.rst",
            ),
        log:
            f"{RUN}/logs/table_report/r{{n}}.log",
        benchmark:
            f"{RUN}/benchmarks/table_report/r{{n}}.tsv"
        conda:
            ENV
        resources:
            **get_data_resources(),
        params:
            *get_code("table_report"),
            tables=flag("tables", TABLE),
            anchors=flag("anchors", rules.gen_scoreanchors.output.rows) if cfg.tabular.anchors == "test" else "",
            copies=flag("copies", cfg.tabular.copies),
            seed=flag("seed", cfg.seed),
        shell:
            "python -m workflow_scripts.table_report {params.tables} {params.anchors} {params.copies} {params.seed} "
            "--results {input.data} --round {wildcards.n} --plot {output.plot} --output {output.figures} 2>&1 | tee {log}"
