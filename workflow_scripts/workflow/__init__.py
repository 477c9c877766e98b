"""The builders that rules use: parameters, commands, resources, targets, early frozen prompts, and the code brake.

This is the Python behind `rules/`, typed and tested without Snakemake where that is possible. It runs in the Python
that runs Snakemake, which may lack torch. `workflow_scripts/config/layout.py` knows where files lie.
"""
