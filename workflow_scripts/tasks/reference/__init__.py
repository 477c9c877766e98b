"""The task `reference`: answers that should resemble references, as in BLEUBERI (arXiv 2505.11080).

An instruction has a list of texts as its `reference`. The config key `reward` chooses how an answer is compared with
them: by BLEU, by another reward of `workflow_scripts/rewards/`, or by a function in a file of yours.

With `prompts.pool` and `reference.selection`, the train prompts are selected from a pool by how well the model that
round 0 starts from answers them. Pools have the original's columns: `id`, `source`, `messages` or `prompt`, and one
column `ref_output_{model}` for the references by each model.

`instructions.py` makes up short instructions with three references each, for a model that is small enough for a
laptop's CPU.
"""
