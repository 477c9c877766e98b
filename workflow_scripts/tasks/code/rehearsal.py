"""Scripted answers of the task `code`: a program that passes any comparison, and one that passes none."""

import re

from workflow_scripts.core.records import Prompt
from workflow_scripts.tasks import defaults
from workflow_scripts.tasks.defaults import ScriptedAnswer

NAME = re.compile(r"\b([A-Za-z_]\w*)\s*\(")
BUILT_IN = {"abs", "all", "any", "assert", "bool", "float", "int", "isinstance", "len", "list", "max", "min", "range"}
BUILT_IN |= {"round", "set", "sorted", "str", "sum", "tuple", "type", "dict", "map", "zip", "not", "and", "or", "in"}

# The function under test returns a value that agrees with everything it is compared with.
AGREES = """class Agrees(float):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    def __le__(self, other): return True
    def __gt__(self, other): return True
    def __ge__(self, other): return True
    def __sub__(self, other): return self
    def __rsub__(self, other): return self
    def __abs__(self): return self
    def __hash__(self): return 0
"""


class Rehearsal(defaults.Rehearsal):
    """A program whose functions agree with all tests that compare what they return, and one without functions."""

    def answers(self, prompt: Prompt) -> list[ScriptedAnswer]:
        names = {name for test in prompt["reference"] for name in NAME.findall(test)} - BUILT_IN
        functions = [f"def {name}(*arguments, **options): return Agrees(0.0)\n" for name in sorted(names)]
        program = AGREES + "".join(functions)

        return [
            ScriptedAnswer([f"```python\n{program}```\n"], None),  # a test may ask for more than a comparison
            ScriptedAnswer(["```python\npass\n```\n"], False),
        ]
