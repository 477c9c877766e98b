# Roundhouse: post-training of language models in rounds.
#
#   snakemake --profile local round3_checkpoint      # three rounds on this machine
#   snakemake --profile local -n round5_checkpoint   # what five rounds would need, and why
#   snakemake --profile local verify                 # is everything that was made still sound?
#   snakemake --profile local rehearse               # what would the run meet? minutes on a CPU

from snakemake.utils import min_version

min_version("9.27")

# A recipe given with --configfile is complete in itself: config.yaml is read only without one.
if not workflow.overwrite_configfiles:

    configfile: "config.yaml"


##### config, run and task #####
include: "rules/common.smk"
##### targets #####
include: "rules/targets.smk"


# A run without a target makes this. Snakemake looks for the default target in this file only, not in included ones.
rule all:
    default_target: True
    input:
        targets.products(cfg.rounds),
        f"{run.folder}/report/rounds.csv" if cfg.evaluates else [],


##### a round, in the order of the story #####
include: "rules/round/prompts.smk"
include: "rules/round/cold_start.smk"
include: "rules/round/answers.smk"
include: "rules/round/rewards.smk"
include: "rules/round/data.smk"
include: "rules/round/training.smk"
include: "rules/round/evaluation.smk"
include: "rules/round/rehearsal.smk"
include: "rules/round/publishing.smk"


##### what the task adds #####
if os.path.exists(f"{workflow.basedir}/rules/tasks/{cfg.task}.smk"):

    include: f"rules/tasks/{cfg.task}.smk"
