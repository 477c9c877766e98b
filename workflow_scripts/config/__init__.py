"""The config: a schema per section, what must hold between sections, and where a run's files lie.

A task's own section lives in the task's wing and is attached by the task's name. No code digest covers this folder:
its values reach a stage as parameters, which Snakemake compares.
"""
