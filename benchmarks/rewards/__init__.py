"""Measurements of what the rewards and figures of a run are worth. Each file has a function `measure`."""
