"""The graders of mathematical answers and of programs: how often they are right, and how fast they are.

    python -m benchmarks.rewards graders

Answers: the list of tests/data/math_answers.jsonl, which a person judged. The peer is math-verify with its defaults, in
one sandboxed process. Programs: the cheating programs of tests/tasks/code, of which none may pass a test. The peer runs
program and tests in one process, as the harnesses of HumanEval and MBPP do.

With AUTOCODE_RESULTS, the folder of AutoCode's published results (*.matchlog.pkl), it also measures how often the
grader agrees with the verdicts stored there.
"""

import importlib.metadata
import json
import math
import os
import platform
from pathlib import Path
from time import perf_counter
from typing import Any

from tests.tasks.code.cheats import ADD, CHEATS
from tests.tasks.code.cheats_of_processes import CHEATS_OF_PROCESSES
from workflow_scripts import tasks
from workflow_scripts.core.records import read_records
from workflow_scripts.core.sandbox import Sandbox
from workflow_scripts.core.workers import Workers
from workflow_scripts.grade import read_answers

TRIPLES = Path(__file__).resolve().parents[2] / "tests/data/math_answers.jsonl"
ALL_CHEATS = CHEATS + CHEATS_OF_PROCESSES
SPEED = 200  # programs, and comparisons, whose rate is measured

MATH_VERIFY = """import json, logging
from math_verify import parse, verify
logging.disable(logging.CRITICAL)
for answer, reference in json.loads({pairs!r}):
    try:
        print(int(verify(parse(reference), parse(answer))))
    except BaseException:
        print(0)
"""
SAME_PROCESS = """import io, os, sys
real, out = print, sys.stdout
def attempt():
    sys.stdout = io.StringIO()
    names = {{"__name__": "__test__"}}
    exec({program!r}, names)
    exec({test!r}, names)
attempt()
real("passed", file=out, flush=True)
"""


def wilson(successes: int, count: int) -> list[float]:
    """Return the 95 % interval of a share (Wilson 1927)."""
    z = 1.959963984540054
    share = successes / count
    middle = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return [(middle - half) / (1 + z * z / count), (middle + half) / (1 + z * z / count)]


def compared(name: str, ours: int, peer: int, count: int, peer_name: str, version: str) -> dict[str, Any]:
    """Return the result of two shares of the same answers."""
    return {
        "name": name,
        "ours": ours / count,
        "peer": peer / count,
        "ratio": ours / peer if peer else None,
        "interval": wilson(ours, count),
        "unit": f"share of {count}",
        "peer_name": peer_name,
        "peer_version": version,
    }


def math_answers(run: Workers) -> list[dict[str, Any]]:
    """Return how often verdicts are those of a person, ours and math-verify's."""
    triples = [json.loads(line) for line in TRIPLES.read_text().splitlines()]
    grading = tasks.load("math", "Grading")
    begun = perf_counter()
    grades = grading.grade_batch(triples, run)
    seconds = perf_counter() - begun
    ours = sum((grade["reward"] == 1) == triple["right"] for grade, triple in zip(grades, triples))

    pairs = [(triple["answer"], as_text(triple["reference"])) for triple in triples]
    with Sandbox(cpu_seconds=400, wall_seconds=800, memory_mb=4096, output_bytes=100_000) as sandbox:
        lines = sandbox(MATH_VERIFY.format(pairs=json.dumps(pairs)))["output"].split()
    peer = sum((line == "1") == triple["right"] for line, triple in zip(lines, triples))

    version = importlib.metadata.version("math-verify")
    undecided = sum(grade["undecided"] is not None for grade in grades)
    return [
        compared("math answers judged right", ours, peer, len(triples), "math-verify", version),
        {"name": "math answers undecided", "value": undecided, "unit": f"of {len(triples)}"},
        {"name": "math answers graded", "value": len(triples) / seconds, "unit": "per second"},
    ]


def as_text(reference: Any) -> str:
    """Return a reference as text, for the peer: the first of a list."""
    return str(reference[0] if isinstance(reference, list) else reference)


def programs(run: Workers) -> list[dict[str, Any]]:
    """Return how many cheating programs pass a test that they should not, and how fast honest ones are tested."""
    python = f"Python {platform.python_version()}"
    grading = tasks.load("code", "Grading", {"limits": {"cpu_seconds": 2, "wall_seconds": 10}})
    answers = [{"answer": f"```python\n{program}```", "reference": cheated} for _, program, cheated in ALL_CHEATS]
    ours = sum(grade["passed"] > 0 for grade in grading.grade_batch(answers, run))

    peer = 0
    with Sandbox(cpu_seconds=2, wall_seconds=10) as sandbox:
        for _, program, cheated in ALL_CHEATS:
            outputs = [
                sandbox(SAME_PROCESS.format(program=program, test=test))["output"]
                for test in cheated
                if not test.startswith("{")
            ]
            peer += "passed\n" in outputs

    honest = [f"```python\ndef add(a, b):\n    return a + b + {i} - {i}\n```" for i in range(SPEED)]
    honest = [text.replace("a + b", "b + a" if i % 2 else "a + b", 1) for i, text in enumerate(honest)]
    begun = perf_counter()
    grading.grade_batch([{"answer": text, "reference": ADD} for text in honest], run)
    seconds = perf_counter() - begun
    return [
        compared(
            "cheating programs that pass a test", ours, peer, len(ALL_CHEATS), "tests in the same process", python
        ),
        {"name": "programs tested", "value": SPEED / seconds, "unit": f"per second, {len(ADD)} tests each"},
    ]


def agreement(run: Workers) -> list[dict[str, Any]]:
    """Return how often the grader agrees with the verdicts stored in AutoCode's results, by file."""
    results = []
    grading = tasks.load("math", "Grading")

    for path in sorted(Path(os.environ.get("AUTOCODE_RESULTS", "/nowhere")).glob("*.pkl")):
        answers = read_answers(str(path), "math", needs_reference=True)
        stored = [record["match"][0]["res"] for record in read_records(str(path))]
        figures = grading.summary(grading.grade_batch(answers, run), answers)
        agreeing = round(figures["agreement"] * len(answers))
        unit = f"share of {len(answers)}"
        name = path.name.split(".")[0]
        results += [
            {
                "name": f"agreement with stored verdicts, {name}",
                "value": figures["agreement"],
                "interval": wilson(agreeing, len(answers)),
                "unit": unit,
            },
            {"name": f"accuracy of final answers, {name}", "value": figures["accuracy"], "unit": unit},
            {"name": f"accuracy of any attempt, {name}", "value": figures["accuracy_any"], "unit": unit},
            {"name": f"reported accuracy, {name}", "value": sum(stored) / len(stored), "unit": unit},
        ]
    return results


def measure() -> list[dict[str, Any]]:
    """Return all results of this part."""
    with Workers() as run:
        return [*math_answers(run), *programs(run), *agreement(run)]
