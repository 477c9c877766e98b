"""Scripted answers of the task `math`: by reasoning and by a program, and a program that prints too much."""

from workflow_scripts.core.records import Prompt
from workflow_scripts.tasks import defaults
from workflow_scripts.tasks.defaults import ScriptedAnswer
from workflow_scripts.tasks.math.conversation import STOP

LONG_OUTPUT = 2000  # times that the last program prints "1234 ": 10,000 bytes


class Rehearsal(defaults.Rehearsal):
    """Right and wrong answers on both paths."""

    def answers(self, prompt: Prompt) -> list[ScriptedAnswer]:
        reference = str(prompt["reference"])
        program = f"\n```python\nprint({reference!r})\n```\n{STOP}"
        runaway = f"\n```python\nprint('1234 ' * {LONG_OUTPUT})\n```\n{STOP}"
        stated = f"\\boxed{{{reference}}}" if "$" in reference else f"${reference}$"  # which holds one short line
        wrong = "The answer is -987654321."

        return [
            ScriptedAnswer([f" The answer is {stated}."], True),
            ScriptedAnswer([f" {wrong}"], False),
            ScriptedAnswer([program, f"The answer is \\boxed{{{reference}}}."], True),
            ScriptedAnswer([runaway, wrong], False),
        ]
