# A round as others can use it: weights in bf16, training data, and a card for each. Nothing is uploaded.


# As with the page, code is no parameter: it changes no result of the run.
rule publish:
    input:
        checkpoint=lambda wildcards: run.checkpoint(wildcards.n),
        evaluations=lambda wildcards: run.evaluations(int(wildcards.n)),
        data=lambda wildcards: ancient([*run.trained_on(int(wildcards.n)).values()]),
        manifests=lambda wildcards: manifests(run.trained_on(int(wildcards.n)).values()),
    output:
        run.published("{n}"),
    log:
        run.log("publish/r{n}"),
    benchmark:
        run.benchmark("publish/r{n}")
    conda:
        ENV
    resources:
        **resources_of.model(),
    params:
        **params_of.publish(),
    shell:
        commands.stage("publish", "--round {wildcards.n} --checkpoint {input.checkpoint} --output {output}")
