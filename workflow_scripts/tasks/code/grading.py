"""Grade an answer by the tests that its program passes.

The tests run in a process that the program cannot reach (`trial.py`). Tests by stdin and stdout compare what the
program printed. With `code.service`, an external service runs the programs (`service.py`), and the comparison is made
here.
"""

import re
from collections.abc import Sequence
from typing import Any

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.records import Answer, Prompt
from workflow_scripts.core.workers import Outcome, no_room
from workflow_scripts.tasks import defaults
from workflow_scripts.tasks.code import service, trial
from workflow_scripts.tasks.code.readers import as_tests
from workflow_scripts.tasks.defaults import mean

LIMITS = {"cpu_seconds": 5, "wall_seconds": 20, "memory_mb": 1024, "file_mb": 1}  # of a program, per test
SPELLINGS = {"python": "python3?|py", "cpp": r"cpp|c\+\+|cc", "javascript": "javascript|js", "rust": "rust|rs"}
MOST_PROGRAMS = 8  # of an answer, from its end, that are tested

Results = list[tuple[bool, str | None]]  # of each test: whether it passed, and if not, why


class Grading(defaults.Grading):
    """Adds `reward` (1 if the last program passes all tests, else 0; with `code.credit: share`, the share of tests that
    it passes), `passed` (that share), `path`, `prediction`, `any_right` (whether any program in the answer passes all
    tests) and `failure` (why the last program fails the first test that it fails)."""

    runs_programs = True

    def grade(self, answer: Answer, run: defaults.RunProgram) -> dict[str, Any]:
        return self.grade_batch([answer], run)[0]

    def grade_batch(self, answers: Sequence[Answer], run: defaults.RunProgram) -> list[dict[str, Any]]:
        programs = [self.programs(answer["answer"]) for answer in answers]
        tests = [tests_of(answer) for answer in answers]
        trials = [(program, of_answer) for of_answer, own in zip(tests, programs) for program in own]
        distinct = list(dict.fromkeys(trials))
        results = dict(zip(distinct, self.results(distinct, run)))
        return [
            self.grade_of(own, of_answer, [results[program, of_answer] for program in own])
            for of_answer, own in zip(tests, programs)
        ]

    def programs(self, text: str) -> list[str]:
        """Return the programs in an answer, up to the last MOST_PROGRAMS."""
        language = self.settings.get("language", "python")
        spellings = SPELLINGS.get(language, re.escape(language))
        return re.findall(rf"```(?:{spellings})[ \t]*\n(.*?)```", text, re.DOTALL | re.IGNORECASE)[-MOST_PROGRAMS:]

    def results(self, trials: list[tuple[str, tuple[str, ...]]], run: Any) -> list[Results]:
        """Return the results of the tests of each program."""
        limits = LIMITS | self.settings.get("limits", {})
        if called := self.settings.get("service"):
            running = self.running.endpoints["service"]
            language = self.settings.get("language", "python")
            return service.results(trials, called | running | {"language": language}, limits)

        requests = [{"program": program, "tests": list(tests), "limits": limits} for program, tests in trials]
        if requests and not hasattr(run, "handle"):
            run("")  # where prompts are frozen, `run` refuses whatever needs the sandbox
        outcomes = run.handle(trial, requests) if requests else []
        return [completed(outcome, len(tests)) for outcome, (_, tests) in zip(outcomes, trials)]

    def grade_of(self, programs: list[str], tests: Sequence[str], results: list[Results]) -> dict[str, Any]:
        """Return the fields that grading adds to an answer."""
        shares = [sum(passed for passed, _ in of_program) / len(tests) for of_program in results] or [0.0]
        is_right = shares[-1] == 1
        reasons = [reason for passed, reason in results[-1] if not passed] if results else ["there is no program"]
        return {
            "reward": shares[-1] if self.settings.get("credit") == "share" else float(is_right),
            "passed": shares[-1],
            "path": "pot" if programs else "cot",
            "prediction": encodable("".join(programs[-1:])),
            "any_right": 1 in shares,
            "failure": encodable(reasons[0] or "") if reasons else None,
        }

    def right_answer(self, prompt: Prompt) -> str | None:
        solution = prompt.get("solution")
        return f"```python\n{solution}\n```" if solution else None

    def summary(self, graded: Sequence[dict[str, Any]], answers: Sequence[dict[str, Any]]) -> dict[str, float]:
        return {
            "accuracy": mean(answer["passed"] == 1 for answer in graded),
            "accuracy_any": mean(answer["any_right"] for answer in graded),
            "passed": mean(answer["passed"] for answer in graded),
            "n": len(graded),
        }


def tests_of(answer: Answer) -> tuple[str, ...]:
    """Return the tests of an answer's question. Raise BadInput if its reference is no list of tests."""
    tests = as_tests(answer["reference"])
    if tests is None:
        raise BadInput(
            f"answer {answer.get('uid')}: the reference should be a list of tests, found {answer['reference']!r:.60}"
        )
    return tuple(tests)


def encodable(text: str) -> str:
    """Return a text with question marks for lone surrogates, which UTF-8 cannot encode."""
    return text.encode(errors="replace").decode()


def completed(outcome: Outcome, count: int) -> Results:
    """Return the results of all tests; those that did not run are not passed.

    Raises:
        RuntimeError: if the machine could not start the program.
    """
    if faults := [value["no room"] for value in outcome.values if isinstance(value, dict)]:
        raise no_room(faults[0])
    results: Results = [(passed is True, reason) for passed, reason in outcome.values]
    missing = count - len(results)
    return results + [(False, f"it did not run: {outcome.fault}")] * missing
