# A round's policy answers the prompts, shard by shard (or answers come from files), and the answers are graded.


rule generate:
    input:
        prompts=ancient(run.prompts("train")),  # changes count through the shard's own digest
        shard=run.answered_digest("{n}"),
        model=policy,
        task=wing.files("generate").values(),
        script=lambda wildcards: rehearsal.scripts(wildcards.version),
    output:
        data=run.answers("{n}", "{version}"),
        manifest=manifests([run.answers("{n}", "{version}")]),
    log:
        run.log("generate/r{n}_{version}_{shard}"),
    benchmark:
        run.benchmark("generate/r{n}_{version}_{shard}")
    wildcard_constraints:
        n=none_of(cfg.results),
    conda:
        GENERATE_ENV
    threads: max(cfg.generate.threads, cfg.generate.programs or 1)
    resources:
        **resources_of.generation("generate"),
    params:
        **params_of.generate(
            "generate",
            seed=lambda wildcards: f"{cfg.seed}.r{wildcards.n}",
            ledger=lambda wildcards: run.ledger(f"generate/r{wildcards.n}/{wildcards.version}"),
        ),
    shell:
        commands.generate(
            "--prompts {input.prompts} --model {input.model} --shard {wildcards.shard} --shard-file {input.shard} "
            "--output {output.data}"
        )


rule import_results:
    input:
        results=lambda wildcards: getattr(cfg.results[int(wildcards.n)], wildcards.version),
        model=policy,
    output:
        data=run.answers("{n}", "{version}"),
        manifest=manifests([run.answers("{n}", "{version}")]),
    log:
        run.log("import_results/r{n}_{version}_{shard}"),
    benchmark:
        run.benchmark("import_results/r{n}_{version}_{shard}")
    wildcard_constraints:
        n=one_of(cfg.results),
    conda:
        ENV
    resources:
        **resources_of.data(),
    params:
        **params_of.stage("import_results"),
    shell:
        commands.stage(
            "import_results",
            "--results {input.results:q} --model {input.model} --shard {wildcards.shard} --output {output.data}",
        )


rule grade:
    input:
        data=ancient(f"{run.folder}/{{place}}/{{shard}}.pkl"),
        manifest=f"{run.folder}/{{place}}/{{shard}}.json",
        reward=reward_files(cfg, cfg.chosen_reward),
        task=wing.files("grade").values(),
    output:
        data=run.own_graded,
        manifest=manifests([run.own_graded]),
    log:
        run.log("grade/{place}/{shard}"),
    benchmark:
        run.benchmark("grade/{place}/{shard}")
    wildcard_constraints:
        place=GRADED_PLACES,
    conda:
        ENV
    resources:
        **resources_of.reward("grade", cfg.chosen_reward),
    params:
        **params_of.grade(),
    shell:
        commands.reward(
            "grade",
            cfg.chosen_reward,
            "--results {input.data} --shard {wildcards.shard} "
            f"--ledger {run.ledger('grade/{wildcards.place}')} --output {{output.data}}",
        )
