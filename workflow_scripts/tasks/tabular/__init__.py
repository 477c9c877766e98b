"""The task `tabular`: rows of tables, as in SynFed (xueqingpeng/SynFed).

A model is shown five rows of a table and writes one more as JSON. An answer is graded by what can be read from it.
Valid rows are scored by what a model of the downstream task (the task model) gains from each of them, and rounds learn
from preferences between the answers to one prompt.

A round runs through these stages of the task's own, beside the general ones:

    before the rounds   split_tables, gen_synsft (cold start and prompts), gen_scoreanchors, gen_sftfed
    in each round       syn_addprompt, addscore; raw_to_csv, gen_sftfed, merge_models for the next round's task model
    products            gen_dpo (preferences as text), plot_tables

Where the original is broken, this is sound: `recipes/README.md` lists the differences.
"""
