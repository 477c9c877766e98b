# A round's policy answers the prompts, shard by shard (or answers come from files), and they are graded.

imported = "|".join(map(str, cfg.results))


rule generate:
    input:
        prompts=ancient(PROMPTS.get("train", [])),  # changes count through the shard's own digest
        shard=f"{RUN}/prompts/shards/train/{{shard}}.txt",
        model=get_policy,
        catalogue=CATALOGUE,
    output:
        data=f"{RUN}/results/r{{n}}/{{version}}/{{shard}}.pkl",
        manifest=f"{RUN}/results/r{{n}}/{{version}}/{{shard}}.json",
    log:
        f"{RUN}/logs/generate/r{{n}}_{{version}}_{{shard}}.log",
    benchmark:
        f"{RUN}/benchmarks/generate/r{{n}}_{{version}}_{{shard}}.tsv"
    wildcard_constraints:
        n=rf"(?!(?:{imported})/)\d+" if imported else r"\d+",
    conda:
        GENERATE_ENV
    threads: cfg.generate.threads
    resources:
        **get_generate_resources(),
    params:
        *get_code("generate", task=True),
        engine=lambda wildcards: get_engine_code(wildcards.version),
        task=flag("task", cfg.task),
        version=lambda wildcards: flag("version", wildcards.version),
        settings=lambda wildcards: flag("settings", get_generate_settings(wildcards.version)),
        template=flag("template", cfg.template),
        seed=lambda wildcards: flag("seed", f"{cfg.seed}.r{wildcards.n}"),
        sandbox=flag("sandbox", cfg.sandbox),
        environment=get_dialogue_flags("auto"),
        ledger=lambda wildcards: flag("ledger", f"{RUN}/ledger/generate/r{wildcards.n}/{wildcards.version}"),
    shell:
        "generate {resources.gpu} {params.task} {params.version} {params.settings} {params.template} {params.seed} "
        "{params.sandbox} {params.environment} --prompts {input.prompts} --model {input.model} --shard {wildcards.shard} "
        "--shard-file {input.shard} {params.ledger} "
        "--output {output.data} 2>&1 | tee {log}"


rule import_results:
    input:
        results=lambda wildcards: getattr(cfg.results[int(wildcards.n)], wildcards.version),
        model=get_policy,
    output:
        data=f"{RUN}/results/r{{n}}/{{version}}/{{shard}}.pkl",
        manifest=f"{RUN}/results/r{{n}}/{{version}}/{{shard}}.json",
    log:
        f"{RUN}/logs/import_results/r{{n}}_{{version}}_{{shard}}.log",
    benchmark:
        f"{RUN}/benchmarks/import_results/r{{n}}_{{version}}_{{shard}}.tsv"
    wildcard_constraints:
        n=imported or "never",
    conda:
        ENV
    resources:
        **get_data_resources(),
    params:
        *get_code("import_results", task=True),
        task=flag("task", cfg.task),
    shell:
        "python -m workflow_scripts.import_results {params.task} --results {input.results:q} --model {input.model} "
        "--shard {wildcards.shard} --output {output.data} 2>&1 | tee {log}"


rule grade:
    input:
        data=ancient(f"{RUN}/{{place}}/{{shard}}.pkl"),
        manifest=f"{RUN}/{{place}}/{{shard}}.json",
        reward=get_reward_files(cfg.reward),
        catalogue=CATALOGUE,
    output:
        data=f"{RUN}/{{place}}/{{shard}}_matchlog.pkl",
        manifest=f"{RUN}/{{place}}/{{shard}}_matchlog.json",
    log:
        f"{RUN}/logs/grade/{{place}}/{{shard}}.log",
    benchmark:
        f"{RUN}/benchmarks/grade/{{place}}/{{shard}}.tsv"
    wildcard_constraints:
        place=r"results/r\d+/(?:auto|trigger)|evaluation/r\d+",
    conda:
        ENV
    resources:
        **get_judging_resources(cfg.reward),
    params:
        *get_code("grade", task=True),
        task=flag("task", cfg.task),
        sandbox=flag("sandbox", cfg.sandbox),
        reward=get_reward_flags("reward", cfg.reward),
        environment=get_dialogue_flags(),
        ledger=lambda wildcards: flag("ledger", f"{RUN}/ledger/grade/{wildcards.place}"),
    shell:
        f"{get_judging_command(cfg.reward)} workflow_scripts.grade "
        "{params.task} {params.sandbox} {params.reward} {params.environment} "
        "--results {input.data} --shard {wildcards.shard} "
        "{params.ledger} --output {output.data} 2>&1 | tee {log}"
