# What each checkpoint can do: greedy answers to the eval questions, counted; the report; and verification.


use rule generate as generate_eval with:
    input:
        prompts=ancient(PROMPTS["eval"]),
        shard=f"{RUN}/prompts/shards/eval/{{shard}}.txt",
        model=lambda wildcards: get_checkpoint(wildcards.n),
        catalogue=CATALOGUE,
    output:
        data=f"{RUN}/evaluation/r{{n}}/{{shard}}.pkl",
        manifest=f"{RUN}/evaluation/r{{n}}/{{shard}}.json",
    log:
        f"{RUN}/logs/generate_eval/r{{n}}_{{shard}}.log",
    benchmark:
        f"{RUN}/benchmarks/generate_eval/r{{n}}_{{shard}}.tsv"
    wildcard_constraints:
        n=r"\d+",
    resources:
        **get_generate_resources("eval"),
    params:
        *get_code("generate", task=True),
        engine=get_engine_code("eval"),
        task=flag("task", cfg.task),
        version=flag("version", "eval"),
        settings=flag("settings", get_generate_settings("eval")),
        template=flag("template", cfg.template),
        seed=flag("seed", f"{cfg.seed}.eval"),
        sandbox=flag("sandbox", cfg.sandbox),
        environment=get_dialogue_flags("eval"),
        ledger=lambda wildcards: flag("ledger", f"{RUN}/ledger/generate_eval/r{wildcards.n}"),


if cfg.judge:

    rule judge:
        input:
            data=ancient([f"{RUN}/evaluation/r{{n}}/{rank}_matchlog.pkl" for rank in RANKS]),
            manifests=[f"{RUN}/evaluation/r{{n}}/{rank}_matchlog.json" for rank in RANKS],
            before=get_answers_before,
        output:
            data=f"{RUN}/evaluation/judged/r{{n}}.jsonl",
            manifest=f"{RUN}/evaluation/judged/r{{n}}.json",
            rejects=f"{RUN}/evaluation/judged/r{{n}}.rejects.jsonl",
        log:
            f"{RUN}/logs/judge/r{{n}}.log",
        benchmark:
            f"{RUN}/benchmarks/judge/r{{n}}.tsv"
        wildcard_constraints:
            n=r"[1-9]\d*",
        conda:
            ENV
        resources:
            mem_mb=sizes.PROCESS,
            runtime=sizes.DAY,
            api=1,
        params:
            *get_code("judge"),
            settings=flag("settings", get_settings(cfg.judge)),
        shell:
            "judge {params.settings} --results {input.data} --before {input.before} --output {output.data} 2>&1 | tee {log}"


rule evaluate:
    input:
        data=ancient([f"{RUN}/evaluation/r{{n}}/{rank}_matchlog.pkl" for rank in RANKS]),
        manifests=[f"{RUN}/evaluation/r{{n}}/{rank}_matchlog.json" for rank in RANKS],
        before=get_answers_before,
        judged=get_verdicts,
    output:
        f"{RUN}/evaluation/r{{n}}.json",
    log:
        f"{RUN}/logs/evaluate/r{{n}}.log",
    benchmark:
        f"{RUN}/benchmarks/evaluate/r{{n}}.tsv"
    conda:
        ENV
    resources:
        **get_data_resources(),
    params:
        *get_code("evaluate", task=True),
        task=flag("task", cfg.task),
    shell:
        "python -m workflow_scripts.evaluate {params.task} --results {input.data} --before {input.before} "
        "--judged {input.judged} --round {wildcards.n} --output {output} 2>&1 | tee {log}"


rule compare_logps:
    input:
        results=lambda wildcards: get_answers(wildcards.n),
        logp=[f"{get_data('{n}')}_logp/{rank}.pkl" for rank in RANKS],
    output:
        figures=f"{RUN}/report/logps_r{{n}}.json",
        plot=report(
            f"{RUN}/report/logps_r{{n}}.svg",
            category="Rounds",
            labels={"figure": "log-probs: sampled and scored, round {n}"},
            caption="../report/logps.rst",
        ),
    log:
        f"{RUN}/logs/compare_logps/r{{n}}.log",
    benchmark:
        f"{RUN}/benchmarks/compare_logps/r{{n}}.tsv"
    conda:
        ENV
    resources:
        **get_data_resources(),
    params:
        *get_code("compare_logps"),
    shell:
        "python -m workflow_scripts.compare_logps --results {input.results} --logp {input.logp} --plot {output.plot} "
        "--output {output.figures} 2>&1 | tee {log}"


rule report:
    input:
        get_round(cfg.rounds),
        get_compared_logps(),
        ancient(get_further_rounds()),
    output:
        table=report(
            f"{RUN}/report/rounds.csv",
            category="Rounds",
            labels={"figure": "figures by round"},
            caption="../report/rounds.rst",
        ),
        plot=report(
            f"{RUN}/report/rounds.svg",
            category="Rounds",
            labels={"figure": "curves by level"},
            caption="../report/rounds.rst",
        ),
    log:
        f"{RUN}/logs/report.log",
    retries: 0
    localrule: True
    conda:
        ENV
    params:
        *get_code("report", task=True),
        task=flag("task", cfg.task),
        run=flag("run", RUN),
    shell:
        "python -m workflow_scripts.report {params.task} {params.run} --csv {output.table} --plot {output.plot} 2>&1 | tee {log}"


rule verify:
    log:
        f"{RUN}/logs/verify.log",
    retries: 0
    localrule: True
    conda:
        ENV
    params:
        run=flag("run", RUN),
        rounds=flag("rounds", cfg.rounds),
        first=flag("first", get_checkpoint(0)),
    shell:
        "python -m workflow_scripts.verify {params.run} {params.rounds} {params.first} > {log} 2>&1 && cat {log}"
