"""Measurements of rollouts: how full the engine is, and how fast programs run.

    .venv-vllm/bin/python -m benchmarks.rollouts        (or: make bench-rollouts)

The results are a list in benchmarks/out/rollouts.json. A result has a `name`, a `unit`, either a `value` or `ours`,
`peer` and their `ratio` (above 1: ours is better), and an `interval`: the smallest and the largest of the repeats.
"""
