# These rules evaluate each checkpoint (its answers to the eval questions, their metrics), report and verify.


use rule generate as generate_eval with:
    input:
        prompts=ancient(run.prompts("eval")),
        shard=run.shard_digest("eval"),
        model=lambda wildcards: run.checkpoint(wildcards.n),
        task=wing.files("generate_eval").values(),
        script=rehearsal.scripts("eval"),
    output:
        data=run.eval_answers("{n}"),
        manifest=manifests([run.eval_answers("{n}")]),
    log:
        run.log(f"generate_eval/r{{n}}{run.place_of_set}_{{shard}}"),
    benchmark:
        run.benchmark(f"generate_eval/r{{n}}{run.place_of_set}_{{shard}}")
    wildcard_constraints:
        n=r"\d+",
        place_of_set="|".join(map(re.escape, run.places_of_sets)) or "never",
    resources:
        **resources_of.generation("generate_eval", "eval"),
    params:
        **params_of.generate(
            "generate_eval",
            version="eval",
            seed=f"{cfg.seed}.eval",
            ledger=lambda wildcards: run.ledger(f"generate_eval/r{wildcards.n}"),
        ),


if cfg.judge:

    rule judge:
        input:
            data=ancient(run.eval_graded("{n}")),
            manifests=manifests(run.eval_graded("{n}")),
            before=lambda wildcards: run.graded_before(wildcards.n),
            rubric=cfg.judge.rubric or [],
        output:
            data=run.judged("{n}"),
            manifest=manifests([run.judged("{n}")]),
        log:
            run.log("judge/r{n}"),
        benchmark:
            run.benchmark("judge/r{n}")
        wildcard_constraints:
            n=r"[1-9]\d*",
        conda:
            ENV
        resources:
            **resources_of.endpoint(),
        params:
            **params_of.stage("judge", settings=settings_of(cfg.judge)),
        shell:
            commands.judge("--results {input.data} --before {input.before} --output {output.data}")


if cfg.evaluate.suites:

    rule run_suite:
        input:
            model=lambda wildcards: run.checkpoint(wildcards.n),
            files=lambda wildcards: suite_files(cfg.evaluate.suite(wildcards.suite)),
        output:
            metrics=run.suite("{n}", "{suite}"),
            answers=run.suite("{n}", "{suite}").removesuffix(".json") + ".jsonl",
        log:
            run.log("run_suite/r{n}_{suite}"),
        benchmark:
            run.benchmark("run_suite/r{n}_{suite}")
        wildcard_constraints:
            suite=one_of(suite.name for suite in cfg.evaluate.suites),
        conda:
            environments.conda_file(cfg.evaluate.environment)
        threads: cfg.evaluate.threads
        resources:
            **resources_of.suite(),
        params:
            **params_of.stage(
                "run_suite",
                suite=lambda wildcards: settings_of(cfg.evaluate.suite(wildcards.suite)),
                settings=settings_of(cfg.evaluate, "suites", "gpus"),
            ),
        shell:
            commands.suite("--inputs {input.files:q} --model {input.model} --output {output.metrics}")


rule evaluate:
    input:
        data=ancient(run.eval_graded("{n}")),
        manifests=manifests(run.eval_graded("{n}")),
        before=lambda wildcards: ancient(run.graded_before(wildcards.n)),
        round0=lambda wildcards: ancient(run.graded_in_round0(wildcards.n)),
        compared=lambda wildcards: manifests(
            dict.fromkeys([*run.graded_before(wildcards.n), *run.graded_in_round0(wildcards.n)])
        ),
        judged=lambda wildcards: [run.judged(wildcards.n)] if cfg.judge and int(wildcards.n) else [],
        suites=lambda wildcards: run.suites(wildcards.n),
        task=wing.files("evaluate").values(),
    output:
        run.evaluation("{n}"),
    log:
        run.log("evaluate/r{n}"),
    benchmark:
        run.benchmark("evaluate/r{n}")
    conda:
        ENV
    resources:
        **resources_of.data(),
    params:
        **params_of.stage("evaluate"),
    shell:
        commands.stage(
            "evaluate",
            "--results {input.data} --before {input.before} --round0 {input.round0} --judged {input.judged} "
            "--suites {input.suites} "
            "--round {wildcards.n} --output {output}",
        )


rule compare_logps:
    input:
        results=lambda wildcards: run.all_answers(wildcards.n),
        logp=[f"{run.logp_folder('{n}')}/{shard}.pkl" for shard in run.shards("logp")],
    output:
        metrics=f"{run.folder}/report/logps_r{{n}}.json",
        plot=report(
            f"{run.folder}/report/logps_r{{n}}.svg",
            category="Rounds",
            labels={"figure": "log-probs: sampled and scored, round {n}"},
            caption="../../report/logps.rst",
        ),
    log:
        run.log("compare_logps/r{n}"),
    benchmark:
        run.benchmark("compare_logps/r{n}")
    conda:
        ENV
    resources:
        **resources_of.data(),
    params:
        **params_of.stage("compare_logps"),
    shell:
        commands.stage(
            "compare_logps",
            "--results {input.results} --logp {input.logp} --plot {output.plot} --output {output.metrics}",
        )


# The page has no code among its parameters, because its code changes no result; `snakemake -f` makes it again.
rule page:
    input:
        targets.products(cfg.rounds),
        ancient(run.further_evaluations()),
    output:
        report(
            run.page,
            category="Rounds",
            labels={"figure": "the page of the run"},
            caption="../../report/page.rst",
        ),
    log:
        run.log("page"),
    retries: 0
    localrule: True
    conda:
        ENV
    params:
        task=f"--task {cfg.task}",
        run=f"--run {run.folder}",
    shell:
        commands.stage("page", "--output {output}")


rule report:
    input:
        targets.products(cfg.rounds),
        ancient(run.page),  # the end of a run writes it again
        run.logp_comparisons(),
        ancient(run.further_evaluations()),
    output:
        table=report(
            f"{run.folder}/report/rounds.csv",
            category="Rounds",
            labels={"figure": "metrics by round"},
            caption="../../report/rounds.rst",
        ),
        plot=report(
            f"{run.folder}/report/rounds.svg",
            category="Rounds",
            labels={"figure": "curves by level"},
            caption="../../report/rounds.rst",
        ),
    log:
        run.log("report"),
    retries: 0
    localrule: True
    conda:
        ENV
    params:
        **params_of.stage("report", run=run.folder),
    shell:
        commands.stage("report", "--csv {output.table} --plot {output.plot}")


rule verify:
    log:
        run.log("verify"),
    retries: 0
    localrule: True
    conda:
        ENV
    params:
        run=f"--run {run.folder}",
        rounds=f"--rounds {cfg.rounds}",
        first=f"--first {run.checkpoint(0)}",
        without="" if cfg.evaluates else "--without-evaluation",
        evaluate_every=f"--evaluate-every {cfg.evaluate_every}",
    shell:
        "python -m workflow_scripts.verify {params} > {log} 2>&1 && cat {log}"
