"""The task `code`: programs that must pass tests, as in AceCoder (arXiv 2502.01718) and CodeRL.

CodeRL itself trains on answers that exist, with the config key data.source. `export_rewarded.py` writes such a file
from the graded answers of a run.
"""
