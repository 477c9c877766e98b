"""A table to test with: people, well and ill."""

import random

from workflow_scripts.core.schemas import infer, typed

HEADER = ["Age", "blood pressure", "Pain/Type", "status"]


def schema_of(header, lines, path="mine.csv", **options):
    return infer("mine", str(path), header, lines, **options)


def people(count: int = 60, seed: int = 0) -> list[list[str]]:
    rng, lines = random.Random(seed), []
    for _ in range(count):
        age = rng.randint(30, 70)
        ill = age > 50
        pressure = f"{rng.gauss(140 if ill else 115, 8):.1f}"
        lines.append([str(age), pressure, rng.choice(["none", 'Typical, "old"', "Ünüblich"]), "ill" if ill else "well"])
    return lines


def table(count: int = 60, seed: int = 0):
    lines = people(count, seed)
    schema = schema_of(HEADER, lines)
    return schema, [typed(schema, HEADER, cells)[0] for cells in lines]
