# Graded answers by question, and from them the rows that a round trains on; or rows that exist already.


rule construct_meta:
    input:
        data=ancient([f"{RUN}/results/r{{n}}/{{version}}/{rank}_matchlog.pkl" for rank in RANKS]),
        manifests=[f"{RUN}/results/r{{n}}/{{version}}/{rank}_matchlog.json" for rank in RANKS],
    output:
        data=f"{RUN}/meta/r{{n}}_{{version}}_q2responses_{EXP}.pkl",
        manifest=f"{RUN}/meta/r{{n}}_{{version}}_q2responses_{EXP}.json",
    log:
        f"{RUN}/logs/construct_meta/r{{n}}_{{version}}.log",
    benchmark:
        f"{RUN}/benchmarks/construct_meta/r{{n}}_{{version}}.tsv"
    conda:
        ENV
    resources:
        **get_data_resources(),
    params:
        *get_code("construct_meta", task=True),
        task=flag("task", cfg.task),
        dedup="--dedup" if cfg.data.dedup else "",
    shell:
        "python -m workflow_scripts.construct_meta {params.task} {params.dedup} --results {input.data} "
        "--output {output.data} 2>&1 | tee {log}"


if not cfg.data.source:

    rule construct_data:
        input:
            data=lambda wildcards: ancient(list(get_metas(wildcards).values())),
            manifests=lambda wildcards: beside(get_metas(wildcards).values()),
            scores=get_scores,
            model=get_policy,
        output:
            data=f"{get_data('{n}')}.pkl",
            manifest=f"{get_data('{n}')}.json",
        log:
            f"{RUN}/logs/construct_data/r{{n}}.log",
        benchmark:
            f"{RUN}/benchmarks/construct_data/r{{n}}.tsv"
        conda:
            ENV
        resources:
            **get_data_resources(),
        params:
            *get_code("construct_data", task=True),
            task=flag("task", cfg.task),
            settings=flag("settings", get_settings(cfg.data)),
            seed=flag("seed", cfg.seed),
            metas=lambda wildcards: " ".join(flag(*item) for item in get_metas(wildcards).items()),
            scores=lambda wildcards: " ".join(flag("scores", path) for path in get_scores(wildcards)),
        shell:
            "python -m workflow_scripts.construct_data {params.task} {params.settings} {params.seed} {params.metas} "
            "{params.scores} --model {input.model} --output {output.data} 2>&1 | tee {log}"

else:

    if is_file(cfg.data.source.file):

        rule link_data:
            input:
                cfg.data.source.file,
            output:
                f"{RUN}/data/{SOURCE}",
            log:
                f"{RUN}/logs/link_data.log",
            localrule: True
            conda:
                ENV
            shell:
                'ln -sfn "$(realpath {input:q})" {output} 2>&1 | tee {log}'

    rule import_data:
        input:
            file=get_local(cfg.data.source.file),
            link=f"{RUN}/data/{SOURCE}" if is_file(cfg.data.source.file) else [],
            model=f"{RUN}/checkpoints/init/checkpoint.json",
        output:
            data=f"{get_data('')}.pkl",
            manifest=f"{get_data('')}.json",
        log:
            f"{RUN}/logs/import_data.log",
        benchmark:
            f"{RUN}/benchmarks/import_data.tsv"
        conda:
            ENV
        resources:
            **get_data_resources(),
        params:
            *get_code("import_data", task=True),
            task=flag("task", cfg.task),
            settings=flag("settings", get_settings(cfg.data)),
            template=flag("template", cfg.template),
        shell:
            "python -m workflow_scripts.import_data {params.task} {params.settings} {params.template} "
            "--model {input.model} --output {output.data} 2>&1 | tee {log}"
