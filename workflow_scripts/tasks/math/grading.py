"""Grade an answer of the task `math`: its final result must equal the reference."""

from collections.abc import Sequence
from typing import Any

from workflow_scripts.core.records import Answer, Prompt
from workflow_scripts.tasks import defaults
from workflow_scripts.tasks.defaults import mean
from workflow_scripts.tasks.math import equality
from workflow_scripts.tasks.math.programs import OUTPUT, PROGRAM, shown


class Grading(defaults.Grading):
    """Adds `reward` (1 if the final answer is right, else 0), `path`, `prediction` and `any_right`.

    The final answer is the last one that is stated after the last program, or that program's output if none is stated.
    `any_right` tells whether any attempt in the text is right, which is how AutoCode grades.
    """

    runs_programs = True

    def grade(self, answer: Answer, run: defaults.RunProgram) -> dict[str, Any]:
        text = answer["answer"]
        reference = answer["reference"]
        programs = PROGRAM.findall(text)
        printed = [line for program in programs for line in shown(run(program)).splitlines()[-1:]]

        if programs:
            conclusion = OUTPUT.split(text)[-1] if "```output" in text else text.rsplit("```", 1)[-1]
            final = (equality.stated(conclusion) or printed[-1:])[-1:]
        else:
            final = equality.stated(text)[-1:]

        is_right = any(equality.equal(result, reference, run) for result in final)
        attempts = [*equality.stated(text), *printed]
        return {
            "reward": float(is_right),
            "path": path_of(text),
            "prediction": "".join(final),
            "any_right": is_right or any(equality.equal(attempt, reference, run) for attempt in attempts),
        }

    def right_answer(self, prompt: Prompt) -> str | None:
        return f"\\boxed{{{prompt['reference']}}}"

    def summary(self, graded: Sequence[dict[str, Any]], answers: Sequence[dict[str, Any]]) -> dict[str, float]:
        """Return shares of all answers: right at the end, right in any attempt, with code.

        If the file had AutoCode's verdicts, `agreement` compares them with `any_right`.
        """
        figures = {
            "accuracy": mean(answer["reward"] for answer in graded),
            "accuracy_any": mean(answer["any_right"] for answer in graded),
            "code_share": mean(answer["path"] == "pot" for answer in graded),
            "n": len(graded),
        }
        agreements = [
            before["stored_verdict"] == answer["any_right"]
            for before, answer in zip(answers, graded)
            if before.get("stored_verdict") is not None
        ]
        return figures | ({"agreement": mean(agreements)} if agreements else {})


def path_of(text: str) -> str:
    """Return the path that an answer took: pot (program of thought) or cot (chain of thought)."""
    return "pot" if "```python" in text or "print(" in text else "cot"
