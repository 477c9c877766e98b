# Graded answers by question, and from them the rows that a round trains on.


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
    params:
        *get_code("construct_meta", task=True),
        task=flag("task", cfg.task),
        dedup="--dedup" if cfg.data.dedup else "",
    shell:
        "python -m workflow_scripts.construct_meta {params.task} {params.dedup} --results {input.data} "
        "--output {output.data} 2>&1 | tee {log}"


rule construct_data:
    input:
        data=lambda wildcards: ancient(list(get_metas(wildcards).values())),
        manifests=lambda wildcards: beside(get_metas(wildcards).values()),
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
    params:
        *get_code("construct_data", task=True),
        task=flag("task", cfg.task),
        settings=flag("settings", get_settings(cfg.data)),
        seed=flag("seed", cfg.seed),
        metas=lambda wildcards: " ".join(flag(*item) for item in get_metas(wildcards).items()),
    shell:
        "python -m workflow_scripts.construct_data {params.task} {params.settings} {params.seed} {params.metas} "
        "--model {input.model} --output {output.data} 2>&1 | tee {log}"
