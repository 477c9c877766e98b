# Dialogues with a seeker: the items that can be recommended, and a teacher's dialogues for the cold start and the rounds.


rule catalogue:
    input:
        prompts=[run.prompts(split) for split in freezing.frozen],
        file=local_input(cfg.recommend.catalogue),
        embedder=model_files(cfg.recommend.grounding.embedder),
        vectors=cfg.recommend.grounding.vectors or [],
    output:
        data=wing.catalogue,
        manifest=manifests([wing.catalogue]),
    log:
        run.log("catalogue"),
    benchmark:
        run.benchmark("catalogue")
    conda:
        ENV
    resources:
        **resources_of.called_data("catalogue"),
    params:
        **params_of.stage(
            "catalogue",
            module="tasks.recommend.catalogue",
            file=cfg.recommend.catalogue,
            invented=wing.prompts_are_made_up,
            embedder=cfg.recommend.grounding.embedder,
            grounding=wing.catalogue_grounding,
        ),
    shell:
        commands.stage(
            "tasks.recommend.catalogue",
            commands.endpoint_options({"task": wing.endpoints("catalogue")})
            + " --prompts {input.prompts} --output {output.data}",
        )


if cfg.recommend.explore and wing.imported_step is None:

    rule explore:
        input:
            prompts=run.prompts("pool"),
            catalogue=wing.catalogue,
        output:
            data=wing.explored(),
            manifest=manifests([wing.explored()]),
            rejects=wing.explored(".rejects"),
        log:
            run.log("explore"),
        benchmark:
            run.benchmark("explore")
        conda:
            ENV
        resources:
            **resources_of.endpoint(wing.calls_endpoint("explore")),
        params:
            **params_of.stage(
                "explore",
                module="tasks.recommend.explore",
                settings=wing.settings("explore"),
                turns=cfg.generate.pool.turns,
                max_tokens=cfg.generate.pool.max_tokens,
                seed=f"{cfg.seed}.explore",
            ),
        shell:
            commands.stage(
                "tasks.recommend.explore",
                commands.endpoint_options({"task": wing.endpoints("explore")})
                + " --prompts {input.prompts} --catalogue {input.catalogue} --output {output.data}",
            )


if cfg.recommend.explore and wing.imported_step is not None:

    rule import_dialogues:
        input:
            prompts=run.prompts("pool"),
        output:
            data=wing.explored(wing.imported_step),
            manifest=manifests([wing.explored(wing.imported_step)]),
        log:
            run.log("import_dialogues"),
        benchmark:
            run.benchmark("import_dialogues")
        conda:
            ENV
        resources:
            **resources_of.data(),
        params:
            **params_of.stage(
                "import_dialogues",
                module="tasks.recommend.import_dialogues",
                settings=wing.settings("import_dialogues"),
            ),
        shell:
            commands.stage("tasks.recommend.import_dialogues", "--prompts {input.prompts} --output {output.data}")


if cfg.recommend.explore and wing.imported_step in (None, ""):

    rule rerank:
        input:
            data=wing.explored(),
            manifest=manifests([wing.explored()]),
            catalogue=wing.catalogue,
        output:
            data=wing.explored("_rerank"),
            manifest=manifests([wing.explored("_rerank")]),
        log:
            run.log("rerank"),
        benchmark:
            run.benchmark("rerank")
        conda:
            ENV
        resources:
            **resources_of.called_data("rerank"),
        params:
            **params_of.stage("rerank", module="tasks.recommend.rerank", settings=wing.settings("rerank")),
        shell:
            commands.stage(
                "tasks.recommend.rerank",
                commands.endpoint_options({"task": wing.endpoints("rerank")})
                + " --explored {input.data} --catalogue {input.catalogue} --output {output.data}",
            )


if cfg.recommend.explore and wing.imported_step != "_base_turn":

    rule add_base_turn:
        input:
            wing.explored("_rerank" if wing.is_reranked else ""),
        output:
            data=wing.explored("_base_turn"),
            manifest=manifests([wing.explored("_base_turn")]),
        log:
            run.log("add_base_turn"),
        benchmark:
            run.benchmark("add_base_turn")
        conda:
            ENV
        resources:
            **resources_of.data(),
        params:
            **params_of.stage("add_base_turn", module="tasks.recommend.add_base_turn"),
        shell:
            commands.stage("tasks.recommend.add_base_turn", "--explored {input} --output {output.data}")


if cfg.recommend.explore:

    rule make_sft_data:
        input:
            data=wing.explored("_base_turn"),
            pool=run.prompts("pool"),
        output:
            sft=wing.explored("_sft"),
            manifest=manifests([wing.explored("_sft")]),
            prompts=run.prompts("train"),
            prompts_manifest=manifests([run.prompts("train")]),
            shards=run.shard_digests("train"),
        log:
            run.log("make_sft_data"),
        benchmark:
            run.benchmark("make_sft_data")
        conda:
            ENV
        resources:
            **resources_of.data(),
        params:
            **params_of.stage(
                "make_sft_data",
                module="tasks.recommend.make_sft_data",
                settings=wing.settings("make_sft_data"),
                turns=cfg.generate.auto.turns if cfg.recommend.tgi or cfg.recommend.new_tgi else None,
                seed=cfg.seed if cfg.recommend.new_tgi else None,
                shards=cfg.shards.auto,
            ),
        shell:
            commands.stage(
                "tasks.recommend.make_sft_data",
                "--explored {input.data} --pool {input.pool} --sft {output.sft} --output {output.prompts} "
                + commands.more_shards(),
            )
