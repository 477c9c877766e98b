"""Questions with tests: of a file of yours, or as HumanEval, MBPP and AceCode publish them.

The data set is recognised by its columns. What the model is asked is the published prompt with an instruction around
it, because answers are graded by the program in their last Markdown code block.

HumanEval  prompt, test, entry_point, canonical_solution: complete a function; the function `check` is one test
MBPP       text or prompt, test_list, test_setup_code or test_imports, code: the tests are shown, because only they name
           the function
AceCode    question, test_cases
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any, NotRequired

from workflow_scripts.core.identity import record_id
from workflow_scripts.core.records import Prompt
from workflow_scripts.core.sources import records_of
from workflow_scripts.tasks import defaults

ACECODE = ("question", "test_cases")
COMPLETE = "Complete this Python function. Write the whole program in a Markdown code block.\n\n```python\n{prompt}```"
SOLVE = "{text}\nWrite the program in a Markdown code block of Python. It should pass these tests:\n\n{tests}"

Record = dict[str, Any]


class CodePrompt(Prompt):
    """A prompt of this task. Its reference is a list of tests in Python, which fail by an exception."""

    solution: NotRequired[str | None]  # a program that passes the tests, if the data set has one


class Prompts(defaults.Prompts):
    """Questions from a file or data set; the reference is a list of tests, such as assert statements."""

    def read(self, source: dict[str, Any], split: str, seed: int) -> Iterator[Prompt]:
        first = next(iter(records_of(source)), {})
        convert = next((reader for columns, reader in READERS.items() if first.keys() >= set(columns)), None)

        if convert is not None:
            for record in islice(records_of(source), source["limit"]):
                prompt = convert(record)
                prompt["id"] = str(record.get("task_id") or record_id(prompt["question"]))
                prompt["level"] = split
                yield prompt
            return

        for prompt in defaults.file_prompts(source, split, [ACECODE]):
            has_tests = are_texts(prompt["reference"])
            prompt["reference"] = prompt["reference"] if has_tests else None
            yield prompt


def humaneval_prompt(record: Record) -> CodePrompt:
    """Return a question of HumanEval, without id and level. Its test defines `check` and calls it."""
    test = f"{record['test']}\ncheck({record['entry_point']})"
    solution = record.get("canonical_solution")
    return {  # type: ignore[typeddict-item]
        "question": COMPLETE.format(prompt=record["prompt"]),
        "reference": [test],
        "solution": f"{record['prompt']}{solution}" if solution else None,
    }


def mbpp_prompt(record: Record) -> CodePrompt:
    """Return a question of MBPP, without id and level. Each test runs after the set-up of all tests."""
    tests = record["test_list"] if are_texts(record["test_list"]) else []  # without tests, it becomes a reject
    imports = record.get("test_imports") or []
    setup = "\n".join(imports) or record.get("test_setup_code") or ""
    return {  # type: ignore[typeddict-item]
        "question": SOLVE.format(text=record.get("text") or record.get("prompt"), tests="\n".join(tests)),
        "reference": [f"{setup}\n{test}".strip() for test in tests],
        "solution": record.get("code"),
    }


def are_texts(value: Any) -> bool:
    """Return whether a value is a list of texts that is not empty."""
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)


READERS = {
    ("prompt", "test", "entry_point"): humaneval_prompt,
    ("text", "test_list"): mbpp_prompt,
    ("prompt", "test_list"): mbpp_prompt,
}
