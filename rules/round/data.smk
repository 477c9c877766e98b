# Graded answers by question, and from them the rows that a round trains on. Either may exist as files already.


rule construct_meta:
    input:
        data=lambda wildcards: ancient(run.graded(wildcards.n, wildcards.version)),
        manifests=lambda wildcards: manifests(run.graded(wildcards.n, wildcards.version)),
        task=wing.files("construct_meta").values(),
    output:
        data=run.meta("{n}", "{version}"),
        manifest=manifests([run.meta("{n}", "{version}")]),
    log:
        run.log("construct_meta/r{n}_{version}"),
    benchmark:
        run.benchmark("construct_meta/r{n}_{version}")
    wildcard_constraints:
        n=none_of(cfg.meta),
    conda:
        ENV
    resources:
        **resources_of.data(),
    params:
        **params_of.stage("construct_meta", dedup=cfg.data.dedup),
    shell:
        commands.stage("construct_meta", "--results {input.data} --output {output.data}")


if cfg.meta:

    rule import_meta:
        input:
            file=lambda wildcards: getattr(cfg.meta[int(wildcards.n)], wildcards.version),
            model=run.initial_model,
        output:
            data=run.meta("{n}", "{version}"),
            manifest=manifests([run.meta("{n}", "{version}")]),
        log:
            run.log("import_meta/r{n}_{version}"),
        benchmark:
            run.benchmark("import_meta/r{n}_{version}")
        wildcard_constraints:
            n=one_of(cfg.meta),
        conda:
            ENV
        resources:
            **resources_of.data(),
        params:
            **params_of.stage("import_meta", template=cfg.full_template),
        shell:
            commands.stage(
                "import_meta",
                "--meta {input.file:q} --version {wildcards.version} --model {input.model} --output {output.data}",
            )


if cfg.rows:

    rule import_rows:
        input:
            file=lambda wildcards: local_input(cfg.rows[int(wildcards.n)].file),
            avoid=run.prompts_to_avoid,
            model=run.initial_model,
        output:
            data=run.data("{n}"),
            manifest=manifests([run.data("{n}")]),
        log:
            run.log("import_rows/r{n}"),
        benchmark:
            run.benchmark("import_rows/r{n}")
        wildcard_constraints:
            n=one_of(cfg.rows),
        conda:
            ENV
        resources:
            **resources_of.data(),
        params:
            **params_of.rows(
                "import_rows", module="import_data", settings=params_of.rows_of_round, template=cfg.full_template
            ),
        shell:
            commands.stage("import_data", "--model {input.model} --eval-prompts {input.avoid:q} --output {output.data}")


if not cfg.data.source:

    rule construct_data:
        input:
            data=lambda wildcards: ancient(list(run.metas(wildcards.n).values())),
            manifests=lambda wildcards: manifests(run.metas(wildcards.n).values()),
            model=policy,
            task=wing.files("construct_data").values(),
            replay=lambda wildcards: ancient(run.replayed_data(wildcards.n) + run.replayed_logps(wildcards.n)),
            passports=lambda wildcards: manifests(run.replayed_data(wildcards.n) + run.replayed_logps(wildcards.n)),
        output:
            data=run.data("{n}"),
            manifest=manifests([run.data("{n}")]),
        log:
            run.log("construct_data/r{n}"),
        benchmark:
            run.benchmark("construct_data/r{n}")
        wildcard_constraints:
            n=none_of(cfg.rows),
        conda:
            ENV
        resources:
            **resources_of.data(),
        params:
            **params_of.construct_data(),
        shell:
            commands.stage(
                "construct_data",
                f"--expected {' '.join(run.configured_versions)} " "--model {input.model} --output {output.data}",
            )

else:

    if is_file(cfg.data.source.file):

        rule link_data:
            input:
                cfg.data.source.file,
            output:
                run.linked_source,
            log:
                run.log("link_data"),
            localrule: True
            conda:
                ENV
            shell:
                'ln -sfn "$(realpath {input:q})" {output} 2>&1 | tee {log}'

    rule import_data:
        input:
            file=local_input(cfg.data.source.file),
            link=run.linked_source if is_file(cfg.data.source.file) else [],
            avoid=run.prompts_to_avoid,
            model=run.initial_model,
        output:
            data=run.data("{n}"),
            manifest=manifests([run.data("{n}")]),
        log:
            run.log("import_data"),
        benchmark:
            run.benchmark("import_data")
        conda:
            ENV
        resources:
            **resources_of.data(),
        params:
            **params_of.rows("import_data", settings=settings_of(cfg.data), template=cfg.full_template),
        shell:
            commands.stage("import_data", "--model {input.model} --eval-prompts {input.avoid:q} --output {output.data}")
