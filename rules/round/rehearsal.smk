# A rehearsal of the recipe: a stand-in takes the model's place and answers by a script; the stage reports what the real
# run would meet. Everything else is made by the rules of a round.

if rehearsal.recipe:

    if not cfg.model.scratch:

        rule stand_in:
            input:
                texts=rehearsal.texts(freezing.frozen),
                model=model_files(cfg.model.path),
            output:
                run.initial_model,
            log:
                run.log("stand_in"),
            benchmark:
                run.benchmark("stand_in")
            conda:
                ENV
            resources:
                **resources_of.data(),
            params:
                **params_of.stage(
                    "stand_in", module="rehearsal.stand_in", settings=settings_of(cfg.model), seed=cfg.seed
                ),
            shell:
                commands.stage("rehearsal.stand_in", "--texts {input.texts} --output {output}")

    rule script:
        input:
            prompts=f"{run.folder}/prompts/{{split}}.parquet",
            model=run.initial_model,
            task=wing.files("script").values(),
        output:
            rehearsal.script("{split}"),
        log:
            run.log("script/{split}"),
        benchmark:
            run.benchmark("script/{split}")
        conda:
            ENV
        resources:
            **resources_of.data(),
        params:
            **params_of.stage(
                "script",
                module="rehearsal.script",
                parts=("Rehearsal", "Conversation"),
                versions=lambda wildcards: rehearsal.versions(wildcards.split),
                template=cfg.full_template,
            ),
        shell:
            commands.stage("rehearsal.script", "--prompts {input.prompts} --model {input.model} --output {output}")

    rule rehearse:
        input:
            targets.products(cfg.rounds),
        log:
            run.log("rehearse"),
        retries: 0
        localrule: True
        conda:
            ENV
        params:
            recipe=f"--recipe {rehearsal.recipe_file}",
            run=f"--run {run.folder}",
        shell:
            "python -m workflow_scripts.rehearse {params} > {log} 2>&1 && cat {log}"

else:

    # Only for `--list-target-rules`: with the target `rehearse`, the rules above take its place.
    rule rehearse:
        localrule: True
