# A composed reward: each part is computed by a job of its own, with a ledger of its own, and the parts are added up. A
# changed weight reruns the sums only.

if cfg.train_reward_model:

    rule train_reward_model:
        input:
            model=model_files(cfg.train_reward_model.base) if cfg.train_reward_model.base else run.initial_model,
            pairs=local_input(cfg.train_reward_model.file),
        output:
            run.reward_model,
        log:
            run.log("train_reward_model"),
        benchmark:
            run.benchmark("train_reward_model")
        conda:
            ENV
        threads: cfg.train_reward_model.threads
        resources:
            **resources_of.reward_model_training(),
        params:
            **params_of.stage("train_reward_model", settings=settings_of(cfg.train_reward_model, "gpus"), seed=cfg.seed),
        shell:
            commands.stage(
                "train_reward_model",
                f"--model {cfg.train_reward_model.base or run.initial_model} --state {run.state('reward_model')} "
                "--output {output}",
                gpu=True,
            )


if cfg.reward_parts:

    rule reward:
        input:
            data=ancient(f"{run.folder}/{{place}}/{{shard}}.pkl"),
            manifest=f"{run.folder}/{{place}}/{{shard}}.json",
            files=lambda wildcards: part_files(cfg, wildcards.part),
        output:
            data=run.reward_values(),
            manifest=manifests([run.reward_values()]),
        log:
            run.log("reward/{place}/{shard}_{part}"),
        benchmark:
            run.benchmark("reward/{place}/{shard}_{part}")
        wildcard_constraints:
            place=GRADED_PLACES,
            part="|".join(map(re.escape, run.all_reward_values())) or "never",
        conda:
            ENV
        resources:
            **resources_of.reward_part(),
        params:
            **params_of.reward_part(),
        shell:
            commands.reward_part(
                "--results {input.data} --shard {wildcards.shard} "
                f"--ledger {run.ledger('reward/{wildcards.part}/{wildcards.place}')} --output {{output.data}}",
            )

    rule combine_rewards:
        input:
            graded=ancient(run.own_graded),
            values=ancient(list(run.all_reward_values().values())),
            manifests=manifests([run.own_graded, *run.all_reward_values().values()]),
        output:
            data=f"{run.folder}/{{place}}/{{shard}}_matchlog.pkl",
            manifest=f"{run.folder}/{{place}}/{{shard}}_matchlog.json",
        log:
            run.log("combine_rewards/{place}/{shard}"),
        benchmark:
            run.benchmark("combine_rewards/{place}/{shard}")
        wildcard_constraints:
            place=GRADED_PLACES,
        conda:
            ENV
        resources:
            **resources_of.data(),
        params:
            **params_of.combine_rewards(),
        shell:
            commands.combine_rewards("--graded {input.graded} --output {output.data}")
