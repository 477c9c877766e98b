"""Grade an answer by the share of tests that its program passes.

Not covered: tests run in the process of the program, so a program that looks through the interpreter's frames or
objects, or that returns an object that equals everything, can pass without being right. Ending the process, printing
and redefining builtins do not help it.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from workflow_scripts.core.records import Answer, Prompt
from workflow_scripts.tasks import defaults
from workflow_scripts.tasks.defaults import mean

PROGRAM = re.compile(r"```python\n(.*?)```", re.DOTALL)
# The program is a module of its own, so that its names do not meet those of the code that runs the tests. What it
# prints is thrown away.
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


class Grading(defaults.Grading):
    """Adds `reward` (1 if the last program passes all tests, else 0), `passed` (the share of tests that it passes),
    `path` and `any_right` (whether any program in the answer passes all tests)."""

    runs_programs = True

    def grade(self, answer: Answer, run: defaults.RunProgram) -> dict[str, Any]:
        tests = answer["reference"]
        programs = PROGRAM.findall(answer["answer"])
        counts = [tests_passed(program, tests, run) for program in programs] or [0]

        return {
            "reward": float(counts[-1] == len(tests)),
            "passed": counts[-1] / len(tests),
            "path": "pot" if programs else "cot",
            "prediction": "".join(programs[-1:]),
            "any_right": len(tests) in counts,
        }

    def right_answer(self, prompt: Prompt) -> str | None:
        solution = prompt.get("solution")
        return f"```python\n{solution}\n```" if solution else None

    def summary(self, graded: Sequence[dict[str, Any]], answers: Sequence[dict[str, Any]]) -> dict[str, float]:
        return {
            "accuracy": mean(answer["reward"] for answer in graded),
            "accuracy_any": mean(answer["any_right"] for answer in graded),
            "passed": mean(answer["passed"] for answer in graded),
            "n": len(graded),
        }


def tests_passed(program: str, tests: list[str], run: defaults.RunProgram) -> int:
    """Return how many tests a program passes. Tests that the sandbox's time limit cuts off do not count."""
    mark = hashlib.sha256(json.dumps([program, tests]).encode()).hexdigest()[:8]  # the program does not know it
    output = run(HARNESS.format(program=program, tests=tests, mark=mark))["output"]
    lines = set(output.splitlines())
    return sum(f"{mark} {number}" in lines for number in range(len(tests)))
