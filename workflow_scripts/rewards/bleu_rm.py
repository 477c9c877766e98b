"""BLEU and a reward model together, each in units of its spread among the answers to one prompt (BLEUBERI)."""

NEEDS_MODEL = True
PARTS = ("bleu", "rm")
