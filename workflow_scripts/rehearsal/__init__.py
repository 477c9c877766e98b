"""A rehearsal: a recipe, unchanged, in minutes on a CPU, with a report of what the real run would meet.

The recipe's config is replaced by a smaller one (`workflow/rehearsal.py`): a slice of the data, one round, one
process. A stand-in takes the model's place (`stand_in.py`): its architecture, tokenizer and chat template, but random
weights of a few hundred thousand parameters. It answers by a script (`script.py`, `engines/playback.py`), so that
every stage has right and wrong answers to work with, and a local server takes the place of endpoints (`endpoint.py`).
All stages are the real ones. `workflow_scripts.rehearse` then reports what it found in the data and in the artefacts
(`checks/`).
"""
