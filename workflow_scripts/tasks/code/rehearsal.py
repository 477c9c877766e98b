"""Scripted answers of the task `code`: a program that knows what its tests expect, and one that passes none."""

import ast

from workflow_scripts.core.records import Prompt
from workflow_scripts.tasks import defaults
from workflow_scripts.tasks.code.trial import stdin_test
from workflow_scripts.tasks.defaults import ScriptedAnswer

LOOK_UP = """

def answer(name, arguments):
    return eval(ANSWERS[name, repr(arguments)])
"""
FUNCTION = """

def {name}(*arguments):
    return answer({name!r}, arguments)
"""
SCRIPT = """
import sys

print(INPUTS.get(sys.stdin.read(), ""), end="")
"""


class Rehearsal(defaults.Rehearsal):
    """The published solution, or a program that looks up what simple tests expect; and one without functions."""

    def answers(self, prompt: Prompt) -> list[ScriptedAnswer]:
        solution = prompt.get("solution")
        program = solution or looking_up(prompt["reference"])

        return [
            ScriptedAnswer([f"```python\n{program}\n```\n"], True if solution else None),
            ScriptedAnswer(["```python\npass\n```\n"], False),
        ]


def looking_up(tests: list[str]) -> str:
    """Return a program that passes tests of the form `assert f(…) == …` and tests by stdin and stdout."""
    answers = {}
    inputs = {}

    for test in tests:
        if streams := stdin_test(test):
            inputs[streams[0]] = streams[1]
        elif call := asserted_call(test):
            name, arguments, expected = call
            answers[name, arguments] = expected

    if inputs:
        return f"INPUTS = {inputs!r}\n{SCRIPT}"
    functions = [FUNCTION.format(name=name) for name in sorted({name for name, _ in answers})]
    return f"ANSWERS = {answers!r}\n{LOOK_UP}{''.join(functions)}"


def asserted_call(test: str) -> tuple[str, str, str] | None:
    """Return function, arguments and expected value of `assert f(…) == …`, as text; None for another test."""
    try:
        statement = ast.parse(test).body[-1]
        comparison = statement.test if isinstance(statement, ast.Assert) else None
        if not isinstance(comparison, ast.Compare) or not isinstance(comparison.left, ast.Call):
            return None
        if not isinstance(comparison.left.func, ast.Name) or len(comparison.ops) != 1:
            return None
        arguments = tuple(ast.literal_eval(argument) for argument in comparison.left.args)
        expected = ast.literal_eval(comparison.comparators[0])
    except (SyntaxError, ValueError, IndexError, RecursionError):
        return None
    return comparison.left.func.id, repr(arguments), repr(expected)
