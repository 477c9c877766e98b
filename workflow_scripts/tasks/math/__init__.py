"""The task `math`: AutoCode (arXiv 2502.00691), a policy that decides itself between reasoning and writing code.

Formats follow the original repository (HazekiahWon/AnnonySubmission); its field names are in `importer.py` and
`export_autocode.py` only. Where the original is broken, this is sound: answers are counted before equal texts are
dropped (`data.dedup: true` counts as the original), spliced and imported answers are never weighted by a ratio, and a
missing meta file is reported instead of ending in a crash.

`arithmetic.py` makes up questions at three levels, small enough for a laptop's CPU.
"""
