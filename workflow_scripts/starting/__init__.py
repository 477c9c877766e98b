"""The start of an own experiment: look into a file and a model, and write a config with comments.

`questions.py` looks into files of questions, `models.py` into a model, and `write.py` writes the config. The command is
`python -m workflow_scripts.init`.
"""
