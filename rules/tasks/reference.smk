# The train prompts, selected from a pool by how well the model that round 0 starts from answers them.

if cfg.reference.selection and cfg.reference.selection.scores:

    rule import_scores:
        input:
            pool=run.prompts("pool"),
            file=local_input(cfg.reference.selection.scores),
        output:
            scores=wing.scores,
            histogram=report(
                wing.histogram,
                category="Selection",
                labels={"figure": "scores of the pool"},
                caption="../../report/selection.rst",
            ),
        log:
            run.log("import_scores"),
        benchmark:
            run.benchmark("import_scores")
        conda:
            ENV
        resources:
            **resources_of.data(),
        params:
            **params_of.stage(
                "import_scores",
                module="tasks.reference.import_scores",
                scores=cfg.reference.selection.scores,
                metric=cfg.reference.selection.metric,
            ),
        shell:
            commands.stage(
                "tasks.reference.import_scores",
                "--pool {input.pool} --histogram {output.histogram} --output {output.scores}",
            )

elif cfg.reference.selection:

    use rule generate as generate_pool with:
        input:
            prompts=ancient(run.prompts("pool")),
            shard=run.shard_digest("pool"),
            model=run.checkpoint(0),
            answered=wing.existing_answers,
            task=wing.files("generate_pool").values(),
            script=rehearsal.scripts("pool"),
        output:
            data=wing.pool_answers(),
            manifest=manifests([wing.pool_answers()]),
        log:
            run.log("generate_pool/{shard}"),
        benchmark:
            run.benchmark("generate_pool/{shard}")
        wildcard_constraints:
            shard=r"\d+_\d+",
        resources:
            **resources_of.generation("generate_pool", "pool"),
        params:
            **params_of.generate(
                "generate_pool",
                version="pool",
                seed=f"{cfg.seed}.pool",
                ledger=run.ledger("generate_pool"),
                answered=cfg.reference.selection.inference,
            ),

    rule score_pool:
        input:
            pool=run.prompts("pool"),
            results=ancient(wing.all_pool_answers()),
            manifests=manifests(wing.all_pool_answers()),
            answered=wing.existing_answers,
            reward=reward_files(cfg, cfg.reference.selection.metric),
        output:
            inference=wing.inference,
            scores=wing.scores,
            histogram=report(
                wing.histogram,
                category="Selection",
                labels={"figure": "scores of the pool"},
                caption="../../report/selection.rst",
            ),
        log:
            run.log("score_pool"),
        benchmark:
            run.benchmark("score_pool")
        conda:
            ENV
        resources:
            **resources_of.reward("score_pool", cfg.reference.selection.metric),
        params:
            **params_of.stage(
                "score_pool",
                module="tasks.reference.score_pool",
                roots=rewards.roots(cfg.reference.selection.metric),
                answered=cfg.reference.selection.inference,
                **params_of.reward("metric", cfg.reference.selection.metric),
            ),
        shell:
            commands.reward(
                "tasks.reference.score_pool",
                cfg.reference.selection.metric,
                "--pool {input.pool} --results {input.results} --inference {output.inference} "
                "--histogram {output.histogram} --output {output.scores}",
            )


if cfg.reference.selection:

    rule select_prompts:
        input:
            pool=run.prompts("pool"),
            scores=wing.scores,
        output:
            prompts=run.prompts("train"),
            manifest=manifests([run.prompts("train")]),
            shards=run.shard_digests("train"),
        log:
            run.log("select_prompts"),
        benchmark:
            run.benchmark("select_prompts")
        conda:
            ENV
        resources:
            **resources_of.data(),
        params:
            **params_of.stage(
                "select_prompts",
                module="tasks.reference.select_prompts",
                mode=cfg.reference.selection.mode,
                num_examples=cfg.reference.selection.num_examples,
                seed=cfg.seed,
                shards=cfg.shards.auto,
            ),
        shell:
            commands.stage(
                "tasks.reference.select_prompts",
                "--pool {input.pool} --scores {input.scores} --output {output.prompts} " + commands.more_shards(),
            )

    # This rule is separate from select_prompts because its outputs have settings in their names. Snakemake does not ask
    # whether the params of a rule have changed if one of its outputs does not exist yet.
    rule create_training_data:
        input:
            prompts=run.prompts("train"),
            scores=wing.scores,
        output:
            grpo=directory(wing.grpo_data),
            sft=directory(wing.sft_data),
        log:
            run.log("create_training_data"),
        benchmark:
            run.benchmark("create_training_data")
        conda:
            ENV
        resources:
            **resources_of.data(),
        params:
            **params_of.stage("create_training_data", module="tasks.reference.create_training_data"),
        shell:
            commands.stage(
                "tasks.reference.create_training_data",
                "--prompts {input.prompts} --scores {input.scores} --grpo {output.grpo} --sft {output.sft}",
            )
