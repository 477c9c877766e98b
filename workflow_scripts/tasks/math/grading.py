"""Grade an answer of the task `math`: its final result must equal the reference."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from workflow_scripts.core.records import Answer, Prompt
from workflow_scripts.tasks import defaults
from workflow_scripts.tasks.defaults import mean
from workflow_scripts.tasks.math.equality import Verdict, verdicts
from workflow_scripts.tasks.math.extraction import LONGEST, final_answer, stated
from workflow_scripts.tasks.math.programs import OUTPUT, PROGRAM, shown
from workflow_scripts.tasks.math.prompts import references_of

MOST_PROGRAMS = 16  # of an answer, from its end, that are run
MOST_ATTEMPTS = 32  # of an answer, from its end, that are compared for `any_right`


class Stated(NamedTuple):
    """What an answer states."""

    final: str | None
    attempts: list[str]  # other results, in the order of the text


class Grading(defaults.Grading):
    """Adds `reward` (1 if the final answer is right, else 0), `path`, `prediction`, `any_right` and `undecided`.

    `extraction.py` says which of the results in an answer is its final one. `any_right` tells whether any attempt in
    the text is right, which is how AutoCode grades. `undecided` is the reason why the final answer could not be
    compared, or None. Its reward is 0.
    """

    runs_programs = True

    def grade(self, answer: Answer, run: defaults.RunProgram) -> dict[str, Any]:
        return self.grade_batch([answer], run)[0]

    def grade_batch(self, answers: Sequence[Answer], run: defaults.RunProgram) -> list[dict[str, Any]]:
        run_ahead([answer["answer"] for answer in answers], run)
        results = [stated_results(answer["answer"], run) for answer in answers]
        references = [references_of(answer["reference"]) for answer in answers]

        finals = [[result.final] if result.final else [] for result in results]
        final_verdicts = verdicts(list(zip(finals, references)), run)
        attempts = []
        for result, of_final in zip(results, final_verdicts):
            is_right = any(verdict.is_right for verdict in of_final)
            others = [attempt for attempt in dict.fromkeys(result.attempts) if attempt != result.final]
            attempts.append([] if is_right else others[-MOST_ATTEMPTS:])
        attempt_verdicts = verdicts(list(zip(attempts, references)), run)

        grades = []
        for answer, result, of_final, of_attempts in zip(answers, results, final_verdicts, attempt_verdicts):
            grades.append(grade_of(answer["answer"], result, of_final, of_attempts))
        return grades

    def right_answer(self, prompt: Prompt) -> str | None:
        return f"\\boxed{{{prompt['reference']}}}"

    def summary(self, graded: Sequence[dict[str, Any]], answers: Sequence[dict[str, Any]]) -> dict[str, float]:
        """Return shares of all answers: right at the end, right in any attempt, with code; and how many are undecided.

        If the file had AutoCode's verdicts, `agreement` compares them with `any_right`.
        """
        figures: dict[str, float] = {
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
        if agreements:
            figures["agreement"] = mean(agreements)
        figures["undecided"] = sum(answer["undecided"] is not None for answer in graded)
        return figures


def grade_of(text: str, result: Stated, of_final: list[Verdict], of_attempts: list[Verdict]) -> dict[str, Any]:
    """Return the fields that grading adds to an answer."""
    is_right = any(verdict.is_right for verdict in of_final)
    return {
        "reward": float(is_right),
        "path": path_of(text),
        "prediction": encodable((result.final or "")[:LONGEST]),
        "any_right": is_right or any(verdict.is_right for verdict in of_attempts),
        "undecided": next((encodable(verdict.undecided) for verdict in of_final if verdict.undecided), None),
    }


def encodable(text: str) -> str:
    """Return a text with question marks for lone surrogates, which UTF-8 cannot encode."""
    return text.encode(errors="replace").decode()


def run_ahead(texts: Sequence[str], run: Any) -> None:
    """Run the programs of some answers side by side, where `run` can do so."""
    programs = [program for text in texts for program in PROGRAM.findall(text)[-MOST_PROGRAMS:]]
    if programs and hasattr(run, "run_all"):
        run.run_all(programs)


def stated_results(text: str, run: defaults.RunProgram) -> Stated:
    """Return the results that an answer states, and those that its programs print."""
    programs = PROGRAM.findall(text)[-MOST_PROGRAMS:]
    if not programs:
        return Stated(final_answer(text), stated(text))

    printed = [line for program in programs for line in shown(run(program)).splitlines()[-1:]]
    conclusion = OUTPUT.split(text)[-1] if "```output" in text else text.rsplit("```", 1)[-1]
    return Stated(final_answer(conclusion, printed), [*stated(text), *printed])


def path_of(text: str) -> str:
    """Return the path that an answer took: pot (program of thought) or cot (chain of thought)."""
    return "pot" if "```python" in text or "print(" in text else "cot"
