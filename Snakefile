# Roundhouse: post-training of language models in rounds.
#
#   snakemake --profile local round3_checkpoint      # three rounds on this machine
#   snakemake --profile local -n round5_checkpoint   # what five would need, and why
#   snakemake --profile local verify                 # is everything that was made still sound?

from snakemake.utils import min_version

min_version("9.27")

# A recipe given with --configfile is complete in itself: config.yaml is read only without one.
if not workflow.overwrite_configfiles:

    configfile: "config.yaml"


##### what every rule uses #####
include: "rules/common.smk"
include: "rules/params.smk"
include: "rules/resources.smk"
include: "rules/table_files.smk"
include: "rules/freezing.smk"


##### targets #####
rule all:
    default_target: True
    input:
        get_round(cfg.rounds),
        f"{RUN}/report/rounds.csv",


include: "rules/targets.smk"
##### a round, in the order of the story #####
include: "rules/tabular.smk"
include: "rules/prompts.smk"
include: "rules/recommend.smk"
include: "rules/cold_start.smk"
include: "rules/answers.smk"
include: "rules/selection.smk"
include: "rules/data.smk"
include: "rules/training.smk"
include: "rules/evaluation.smk"
