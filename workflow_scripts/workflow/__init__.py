"""What the rules ask: parameters, commands, resources, targets, prompts that are frozen early, and the code brake.

This is the Python behind `rules/`, typed and tested without Snakemake where that is possible. It runs in the Python
that runs Snakemake, which may lack torch. `workflow_scripts/config/layout.py` knows where files lie.
"""
