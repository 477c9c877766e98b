"""The first half hour on a GPU: what is claimed for one, proved or corrected by one command (`make bench-gpu`).

Each part is a module with a function `measure(bench)`, which runs in a process of its own.
"""
