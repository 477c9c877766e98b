# A round's data is scored under the checkpoint that training starts from (and, where the objective compares with a
# reference, under that too), and training makes the next one.


rule logp:
    input:
        data=ancient(f"{get_data('{n}')}.pkl"),
        manifest=f"{get_data('{n}')}.json",
        model=get_scored,
    output:
        data=f"{LOGP}/{{shard}}.pkl",
        manifest=f"{LOGP}/{{shard}}.json",
    log:
        f"{RUN}/logs/logp/r{{n}}_{{shard}}.log",
    benchmark:
        f"{RUN}/benchmarks/logp/r{{n}}_{{shard}}.tsv"
    conda:
        ENV
    threads: cfg.logp.threads * max(1, cfg.logp.gpus)
    resources:
        **by_attempt(sizes.of_scoring),
        gpu=cfg.logp.gpus,
        nodes=1,
    params:
        *get_code("logp"),
        settings=flag("settings", get_settings(cfg.logp, "gpus")),
        sampling=get_sampling_flags(),
        ledger=lambda wildcards: flag("ledger", f"{RUN}/ledger/logp/r{wildcards.n}"),
    shell:
        "launch --gpus {resources.gpu} -- workflow_scripts.logp {params.settings} {params.sampling} "
        "--data {input.data} --model {input.model} --shard {wildcards.shard} "
        "{params.ledger} --output {output.data} 2>&1 | tee {log}"


if not cfg.data.source:

    use rule logp as ref_logp with:
        input:
            data=ancient(f"{get_data('{n}')}.pkl"),
            manifest=f"{get_data('{n}')}.json",
            model=get_checkpoint(0),
        output:
            data=f"{get_data('{n}')}_ref_logp/{{shard}}.pkl",
            manifest=f"{get_data('{n}')}_ref_logp/{{shard}}.json",
        log:
            f"{RUN}/logs/ref_logp/r{{n}}_{{shard}}.log",
        benchmark:
            f"{RUN}/benchmarks/ref_logp/r{{n}}_{{shard}}.tsv"
        params:
            *get_code("logp"),
            settings=flag("settings", get_settings(cfg.logp, "gpus")),
            sampling=get_sampling_flags(),
            ledger=lambda wildcards: flag("ledger", f"{RUN}/ledger/ref_logp/r{wildcards.n}"),


rule train:
    input:
        unpack(get_stored_logps),
        data=lambda wildcards: ancient(f"{get_data(wildcards.n)}.pkl"),
        manifest=lambda wildcards: f"{get_data(wildcards.n)}.json",
        model=get_policy,
    output:
        f"{RUN}/checkpoints/r{{n}}/checkpoint.json",
    log:
        f"{RUN}/logs/train/r{{n}}.log",
    benchmark:
        f"{RUN}/benchmarks/train/r{{n}}.tsv"
    wildcard_constraints:
        n=r"[1-9]\d*",  # a job on a cluster knows its own rule alone, and would make round 0 by it too
    conda:
        ENV
    threads: cfg.train.threads * cfg.train.processes
    resources:
        **get_train_resources(cfg.train),
    params:
        *get_code("train"),
        settings=flag("settings", get_settings(cfg.train)),
        seed=lambda wildcards: flag("seed", cfg.seed + int(wildcards.n)),
        rounds=flag("rounds", cfg.rounds) if cfg.train.schedule_over == "rounds" else "",
        state=lambda wildcards: flag("state", f"{RUN}/state/r{wildcards.n}"),
        logps=get_logp_flags,
    shell:
        "launch --gpus {resources.gpu} --processes {resources.processes} --nodes {resources.nodes} --threads {threads} -- "
        "workflow_scripts.train {params.settings} {params.seed} {params.rounds} --data {input.data} "
        "{params.logps} --model {input.model} --round {wildcards.n} {params.state} "
        "--output {output} 2>&1 | tee {log}"
