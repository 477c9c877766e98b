# A round's data is scored under the checkpoint that training starts from, and training makes the next one.


rule logp:
    input:
        data=ancient(f"{get_data('{n}')}.pkl"),
        manifest=f"{get_data('{n}')}.json",
        model=get_policy,
    output:
        data=f"{get_data('{n}')}_logp/{{shard}}.pkl",
        manifest=f"{get_data('{n}')}_logp/{{shard}}.json",
    log:
        f"{RUN}/logs/logp/r{{n}}_{{shard}}.log",
    benchmark:
        f"{RUN}/benchmarks/logp/r{{n}}_{{shard}}.tsv"
    conda:
        ENV
    threads: cfg.logp.threads
    params:
        *get_code("logp"),
        settings=flag("settings", get_settings(cfg.logp)),
        temperature=flag("temperature", cfg.generate.auto.temperature),
        top_p=flag("top-p", cfg.generate.auto.top_p),
        top_k=flag("top-k", cfg.generate.auto.top_k),
        ledger=lambda wildcards: flag("ledger", f"{RUN}/ledger/logp/r{wildcards.n}"),
    shell:
        "python -m workflow_scripts.logp {params.settings} {params.temperature} {params.top_p} {params.top_k} "
        "--data {input.data} --model {input.model} --shard {wildcards.shard} "
        "{params.ledger} --output {output.data} 2>&1 | tee {log}"


rule train:
    input:
        data=ancient(f"{get_data('{n}')}.pkl"),
        manifest=f"{get_data('{n}')}.json",
        logp=ancient([f"{get_data('{n}')}_logp/{rank}.pkl" for rank in RANKS]),
        passports=[f"{get_data('{n}')}_logp/{rank}.json" for rank in RANKS],
        model=get_policy,
    output:
        f"{RUN}/checkpoints/r{{n}}/checkpoint.json",
    log:
        f"{RUN}/logs/train/r{{n}}.log",
    benchmark:
        f"{RUN}/benchmarks/train/r{{n}}.tsv"
    conda:
        ENV
    threads: cfg.train.threads
    params:
        *get_code("train"),
        settings=flag("settings", get_settings(cfg.train)),
        seed=lambda wildcards: flag("seed", cfg.seed + int(wildcards.n)),
        state=lambda wildcards: flag("state", f"{RUN}/state/r{wildcards.n}"),
    shell:
        "python -m workflow_scripts.train {params.settings} {params.seed} --data {input.data} --logp {input.logp} "
        "--model {input.model} --round {wildcards.n} {params.state} "
        "--output {output} 2>&1 | tee {log}"


if cfg.cold_start:

    ruleorder: cold_start > train
