"""Programs that must pass tests, as in AceCoder (arXiv 2502.01718) and CodeRL: question in, Python out.

A prompt's `answer` is its tests, a list of assert statements as JSON text. An answer's last ```python block is run in
the sandbox with them: it is right if all pass. Selection and the rest are the math task's; CodeRL itself trains on
answers that exist (config key data.source).
Not covered: tests run in the process of the program, so one that looks through the interpreter's frames or objects, or
returns an object that equals everything, can pass without being right. Ending the process, printing, and redefining
builtins do not help it.
"""

import hashlib
import json
from collections.abc import Callable, Iterator

from workflow_scripts.tasks import math
from workflow_scripts.tasks.math import *  # noqa: F403  meta, selection and the rest are the math task's

# after math's, which they replace
from workflow_scripts.core.single_turn import STOP, reply, requests, segments  # noqa: F401  isort: skip

FIGURES = math.FIGURES | {"passed": ("tests passed", ".1%")}
TRIGGERS: dict[str, str] = {}
# The program is a module of its own, so that what it defines does not meet what runs the tests; its prints go nowhere.
HARNESS = """import io, sys, types
run, show, out, module = exec, print, sys.stdout, types.ModuleType("solution")
sys.modules["solution"], sys.stdout = module, io.StringIO()
run({program!r}, module.__dict__)
for number, test in enumerate({tests!r}):
    try:
        run(test, module.__dict__)
    except BaseException:
        continue
    show("{mark}", number, file=out, flush=True)
"""


def read_prompts(split: dict, prompts: dict, name: str, seed: int) -> Iterator[dict]:
    """Questions with tests from a file; AceCode-87K has them as `question` and `test_cases`."""
    for prompt in math.file_prompts(split, prompts, name):
        tests = prompt["answer"]
        good = isinstance(tests, list) and tests and all(isinstance(test, str) for test in tests)
        yield prompt | {"answer": json.dumps(tests, ensure_ascii=False) if good else None}


def passed(program: str, tests: list[str], run: Callable[[str], dict]) -> int:
    """How many tests a program passes; those after the sandbox's time limit do not count."""
    mark = hashlib.sha256(json.dumps([program, tests]).encode()).hexdigest()[:8]  # unknown to the program
    lines = set(run(HARNESS.format(program=program, tests=tests, mark=mark))["output"].splitlines())
    return sum(f"{mark} {number}" in lines for number in range(len(tests)))


def grade(record: dict, run: Callable[[str], dict]) -> dict:
    """`match` [{pred, res}]: whether the last program passes all tests; `any`: whether one does; `passed`: the share of
    tests that the last one passes."""
    tests, programs = json.loads(record["correct"]), math.PROGRAM.findall(record["solution"])
    counts = [passed(program, tests, run) for program in programs] or [0]
    return {
        "key": "pot" if programs else "cot",
        "match": [{"pred": "".join(programs[-1:]), "res": counts[-1] == len(tests)}],
        "any": len(tests) in counts,
        "passed": counts[-1] / len(tests),
    }


def summarise(records: list[dict]) -> dict:
    """The math task's figures, and the mean share of tests passed."""
    return math.by_level(records, figures)


def figures(records: list[dict]) -> dict:
    return math.figures(records) | {"passed": sum(r["passed"] for r in records) / max(1, len(records))}
