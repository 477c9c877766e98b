"""A round as others can use it: its weights in bf16, its training data, and a card for each.

`weights.py` and `rows.py` write the files, `facts.py` collects what the cards say, and `cards.py` writes them by the
templates beside it. The stage is `workflow_scripts/publish.py`.
"""
