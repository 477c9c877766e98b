# The prompts to train on, selected from a pool by how well the model that round 0 starts from answers them.

if cfg.selection:

    ANSWERED = [cfg.selection.inference] if cfg.selection.inference else []

    use rule generate as generate_pool with:
        input:
            prompts=ancient(PROMPTS["pool"]),
            shard=f"{RUN}/prompts/shards/pool/{{shard}}.txt",
            model=get_checkpoint(0),
            answered=ANSWERED,
            catalogue=[],
        output:
            data=f"{RUN}/inference/{{shard}}.pkl",
            manifest=f"{RUN}/inference/{{shard}}.json",
        log:
            f"{RUN}/logs/generate_pool/{{shard}}.log",
        benchmark:
            f"{RUN}/benchmarks/generate_pool/{{shard}}.tsv"
        wildcard_constraints:
            shard=r"\d+_\d+",
        resources:
            **get_generate_resources("pool"),
        params:
            *get_code("generate", task=True),
            engine=get_engine_code("pool"),
            task=flag("task", cfg.task),
            version=flag("version", "pool") + (f" {flag('answered', ANSWERED[0])}" if ANSWERED else ""),
            settings=flag("settings", get_generate_settings("pool")),
            template=flag("template", cfg.template),
            seed=flag("seed", f"{cfg.seed}.pool"),
            sandbox=flag("sandbox", cfg.sandbox),
            environment="",
            ledger=flag("ledger", f"{RUN}/ledger/generate_pool"),

    rule score_pool:
        input:
            pool=PROMPTS["pool"],
            results=ancient([f"{RUN}/inference/{rank}.pkl" for rank in RANKS]),
            manifests=[f"{RUN}/inference/{rank}.json" for rank in RANKS],
            answered=ANSWERED,
            reward=get_reward_files(cfg.selection.metric),
        output:
            inference=f"{RUN}/inference_outputs/{EXP}_inference_results.csv",
            scores=f"{RUN}/scored_outputs/{SCORED}.json",
            histogram=report(
                f"{RUN}/scored_outputs/{SCORED}.png",
                category="Selection",
                labels={"figure": "scores of the pool"},
                caption="../report/selection.rst",
            ),
        log:
            f"{RUN}/logs/score_pool.log",
        benchmark:
            f"{RUN}/benchmarks/score_pool.tsv"
        conda:
            ENV
        resources:
            **get_judging_resources(cfg.selection.metric),
        params:
            *get_code("score_pool"),
            metric=get_reward_flags("metric", cfg.selection.metric),
            answered=flag("answered", ANSWERED[0]) if ANSWERED else "",
        shell:
            f"{get_judging_command(cfg.selection.metric)} workflow_scripts.score_pool "
            "{params.metric} {params.answered} --pool {input.pool} "
            "--results {input.results} --inference {output.inference} --histogram {output.histogram} "
            "--output {output.scores} 2>&1 | tee {log}"

    rule select_prompts:
        input:
            pool=PROMPTS["pool"],
            scores=f"{RUN}/scored_outputs/{SCORED}.json",
        output:
            prompts=PROMPTS["train"],
            manifest=beside([PROMPTS["train"]]),
            shards=get_shard_files("train"),
        log:
            f"{RUN}/logs/select_prompts.log",
        benchmark:
            f"{RUN}/benchmarks/select_prompts.tsv"
        conda:
            ENV
        resources:
            **get_data_resources(),
        params:
            *get_code("select_prompts"),
            settings=flag("settings", get_settings(cfg.selection, "inference")),
            seed=flag("seed", cfg.seed),
            shards=flag("shards", cfg.shards),
        shell:
            "python -m workflow_scripts.select_prompts {params.settings} {params.seed} {params.shards} "
            "--pool {input.pool} --scores {input.scores} --output {output.prompts} 2>&1 | tee {log}"

    # A rule of its own: settings are in the names, and a rule with an output that is not there yet is not asked whether
    # its params have changed.
    rule create_training_data:
        input:
            prompts=PROMPTS["train"],
            scores=f"{RUN}/scored_outputs/{SCORED}.json",
        output:
            grpo=directory(TRAINING_DATA[0]),
            sft=directory(TRAINING_DATA[1]),
        log:
            f"{RUN}/logs/create_training_data.log",
        benchmark:
            f"{RUN}/benchmarks/create_training_data.tsv"
        conda:
            ENV
        resources:
            **get_data_resources(),
        params:
            *get_code("create_training_data"),
        shell:
            "python -m workflow_scripts.create_training_data --prompts {input.prompts} --scores {input.scores} "
            "--grpo {output.grpo} --sft {output.sft} 2>&1 | tee {log}"
