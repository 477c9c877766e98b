"""What people see of a run: where it is, how long the rest takes, and what its answers look like.

Nothing here determines a result, so no code digest covers this room. `jobs.py` asks Snakemake for all jobs of a run.
`progress.py` reads what a running job has done. `counts.py` counts the records of pending jobs; `estimate.py` and
`plan.py` tell from finished jobs what the others take. `lineage.py` follows a record, and `page/` makes a run's page.
"""
