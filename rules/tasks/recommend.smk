# Dialogues with a seeker: the items that can be recommended, and a teacher's dialogues for the cold start and the rounds.

if cfg.recommend:

    rule catalogue:
        input:
            prompts=list(FROZEN.values()),
            file=get_local(cfg.prompts.catalogue) if cfg.prompts.catalogue else [],
            embedder=get_model_files(cfg.recommend.grounding.embedder),
        output:
            data=CATALOGUE[0],
            manifest=beside(CATALOGUE),
        log:
            f"{RUN}/logs/catalogue.log",
        benchmark:
            f"{RUN}/benchmarks/catalogue.tsv"
        conda:
            ENV
        resources:
            **get_data_resources(),
        params:
            *get_code("catalogue", task=True),
            task=flag("task", cfg.task),
            settings=flag("settings", get_settings(cfg.prompts)),
            grounding=flag("grounding", get_settings(cfg.recommend.grounding)),
        shell:
            "python -m workflow_scripts.catalogue {params.task} {params.settings} {params.grounding} "
            "--prompts {input.prompts} --output {output.data} 2>&1 | tee {log}"


if cfg.recommend and cfg.recommend.explore:

    rule explore:
        input:
            prompts=PROMPTS["pool"],
            catalogue=CATALOGUE,
        output:
            data=f"{EXPLORED}.jsonl",
            manifest=f"{EXPLORED}.json",
            rejects=f"{EXPLORED}.rejects.jsonl",
        log:
            f"{RUN}/logs/explore.log",
        benchmark:
            f"{RUN}/benchmarks/explore.tsv"
        conda:
            ENV
        resources:
            mem_mb=sizes.PROCESS,
            runtime=sizes.DAY,
            api=int("openai" in (cfg.recommend.seeker.engine, cfg.recommend.explore.teacher.engine)),
        params:
            *get_code("explore", task=True),
            task=flag("task", cfg.task),
            environment=get_environment_flag("seeker", "grounding", "list_length", explore=["teacher", "start", "end"]),
            settings=flag(
                "settings", json.dumps({"pool": cfg.generate.pool.model_dump(include={"max_tokens", "turns"})})
            ),
            seed=flag("seed", f"{cfg.seed}.explore"),
        shell:
            "explore {params.task} {params.environment} {params.settings} {params.seed} --prompts {input.prompts} "
            "--catalogue {input.catalogue} --output {output.data} 2>&1 | tee {log}"

    rule rerank:
        input:
            data=f"{EXPLORED}.jsonl",
            manifest=f"{EXPLORED}.json",
            catalogue=CATALOGUE,
        output:
            data=f"{EXPLORED}_rerank.jsonl",
            manifest=f"{EXPLORED}_rerank.json",
        log:
            f"{RUN}/logs/rerank.log",
        benchmark:
            f"{RUN}/benchmarks/rerank.tsv"
        conda:
            ENV
        resources:
            **get_data_resources(),
        params:
            *get_code("rerank"),
            environment=get_environment_flag("grounding", "list_length"),
        shell:
            "python -m workflow_scripts.rerank {params.environment} --explored {input.data} "
            "--catalogue {input.catalogue} --output {output.data} 2>&1 | tee {log}"

    rule add_base_turn:
        input:
            f"{EXPLORED}_rerank.jsonl" if cfg.recommend.explore.rerank else f"{EXPLORED}.jsonl",
        output:
            data=f"{EXPLORED}_base_turn.jsonl",
            manifest=f"{EXPLORED}_base_turn.json",
        log:
            f"{RUN}/logs/add_base_turn.log",
        benchmark:
            f"{RUN}/benchmarks/add_base_turn.tsv"
        conda:
            ENV
        resources:
            **get_data_resources(),
        params:
            *get_code("add_base_turn"),
        shell:
            "python -m workflow_scripts.add_base_turn --explored {input} --output {output.data} 2>&1 | tee {log}"

    rule make_sft_data:
        input:
            data=f"{EXPLORED}_base_turn.jsonl",
            pool=PROMPTS["pool"],
        output:
            sft=f"{EXPLORED}_sft.jsonl",
            manifest=f"{EXPLORED}_sft.json",
            prompts=PROMPTS["train"],
            prompts_manifest=beside([PROMPTS["train"]]),
            shards=get_shard_files("train"),
        log:
            f"{RUN}/logs/make_sft_data.log",
        benchmark:
            f"{RUN}/benchmarks/make_sft_data.tsv"
        conda:
            ENV
        resources:
            **get_data_resources(),
        params:
            *get_code("make_sft_data", task=True),
            task=flag("task", cfg.task),
            environment=get_environment_flag(
                "tgi", "new_tgi", "start", "end", explore=["only_success", "train_only_interaction"]
            ),
            turns=flag("turns", cfg.generate.auto.turns),
            seed=flag("seed", cfg.seed),
            shards=flag("shards", cfg.shards),
        shell:
            "python -m workflow_scripts.make_sft_data {params.task} {params.environment} {params.turns} {params.seed} "
            "{params.shards} --explored {input.data} --pool {input.pool} --sft {output.sft} "
            "--output {output.prompts} 2>&1 | tee {log}"
