"""Read questions with tests in the formats of published data sets.

HumanEval      prompt, test, entry_point, canonical_solution: complete a function; the function `check` is one test
MBPP           text or prompt, test_list, test_setup_code or test_imports, code: the tests are shown, because only they
               name the function
AceCode        question, test_cases (read in prompts.py)
LiveCodeBench  question_content, starter_code, public_test_cases, private_test_cases, metadata: programs that read
               stdin, or methods of a class
BigCodeBench   instruct_prompt, code_prompt, canonical_solution, test, entry_point, libs: one class of `unittest`;
               questions whose libraries are not installed are rejected
"""

import ast
import base64
import binascii
import json
import pickletools
import zlib
from importlib.util import find_spec
from typing import Any, NotRequired

from workflow_scripts.core.records import Prompt

COMPLETE = "Complete this Python function. Write the whole program in a Markdown code block.\n\n```python\n{prompt}```"
SOLVE = "{text}\nWrite the program in a Markdown code block of Python. It should pass these tests:\n\n{tests}"
READ_STDIN = "{text}\n\nWrite a Python program in a Markdown code block. It reads from stdin and prints the answer."
FILL_IN = "{text}\n\nWrite the program in a Markdown code block. It begins like this:\n\n```python\n{starter}\n```"
AS_PUBLISHED = "{text}\n\nWrite the whole program in a Markdown code block of Python."
METHOD_TEST = """result = Solution().{name}({arguments})
assert (list(result) if isinstance(result, tuple) else result) == {expected}"""

TEXT_PICKLE = {"PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT", "STOP"}  # beside the text itself

Record = dict[str, Any]


class CodePrompt(Prompt):
    """A prompt of this task. Its reference is a list of tests."""

    solution: NotRequired[str | None]  # a program that passes the tests, if the data set has one


def humaneval_prompt(record: Record) -> CodePrompt:
    """Return a question of HumanEval, without id and level. Its test defines `check` and calls it.

    Functions that the prompt defines beside the one to complete belong to the test, so no answer can redefine them.
    """
    entry_point = record["entry_point"]
    statements = [node for node in statements_of(record["prompt"]) if getattr(node, "name", None) != entry_point]
    has_helpers = any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in statements)
    helpers = [ast.unparse(node) for node in statements] if has_helpers else []
    test = "\n".join([*helpers, record["test"], f"check({entry_point})"])
    solution = record.get("canonical_solution")
    return {  # type: ignore[typeddict-item]
        "question": COMPLETE.format(prompt=record["prompt"]),
        "reference": [test],
        "solution": f"{record['prompt']}{solution}" if solution else None,
    }


def statements_of(program: str) -> list[ast.stmt]:
    """Return the top-level statements of a program whose last function may lack a body; none if it is no Python."""
    for text in (program, f"{program}\n    pass\n"):
        try:
            return ast.parse(text).body
        except SyntaxError:
            continue
    return []


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


def livecodebench_prompt(record: Record) -> CodePrompt:
    """Return a question of LiveCodeBench, without id and level. Its tests are the public and the private ones."""
    text, starter = record["question_content"], record.get("starter_code") or ""
    question = FILL_IN.format(text=text, starter=starter) if starter.strip() else READ_STDIN.format(text=text)
    try:
        cases = test_cases(record["public_test_cases"]) + test_cases(record.get("private_test_cases") or "[]")
        name = json.loads(record.get("metadata") or "{}").get("func_name")
        tests = [livecodebench_test(case, name) for case in cases]
    except (ValueError, TypeError, KeyError, AttributeError) as fault:
        return {"question": question, "reference": None, "fault": f"its tests cannot be read: {fault!s:.100}"}  # type: ignore[typeddict-item]
    return {"question": question, "reference": tests}  # type: ignore[typeddict-item]


def test_cases(text: Any) -> list[Record]:
    """Return the test cases of a column: JSON, which private cases have pickled, compressed and in base64."""
    try:
        return json.loads(text) if isinstance(text, str) else list(text)
    except ValueError:
        pass
    try:
        pickled = zlib.decompress(base64.b64decode(text))
    except (binascii.Error, zlib.error) as fault:
        raise ValueError(f"test cases are neither JSON nor compressed ({fault})") from None
    return json.loads(pickled_text(pickled))


def pickled_text(pickled: bytes) -> str:
    """Return the text that a pickle of one text holds, without unpickling. Raise ValueError for any other pickle."""
    texts = []
    for instruction, value, _ in pickletools.genops(pickled):
        if "UNICODE" in instruction.name:
            texts.append(value)
        elif instruction.name not in TEXT_PICKLE:
            raise ValueError(f"the pickle of the test cases holds {instruction.name}, where only text is read")
    if len(texts) != 1:
        raise ValueError("the pickle of the test cases should hold one text")
    return texts[0]


def livecodebench_test(case: Record, name: str | None) -> str:
    """Return a test case as a test: on stdin, or as a call of the method that solves the question."""
    if case["testtype"] == "stdin":
        return json.dumps({"stdin": case["input"], "stdout": case["output"]})
    if not name or not name.isidentifier():
        raise ValueError("metadata names no function")
    arguments = ", ".join(repr(json.loads(line)) for line in case["input"].splitlines() if line.strip())
    return METHOD_TEST.format(name=name, arguments=arguments, expected=repr(json.loads(case["output"])))


def bigcodebench_prompt(record: Record) -> CodePrompt:
    """Return a question of BigCodeBench, without id and level. Its test is a class of `unittest`."""
    solution = f"{record.get('complete_prompt') or record.get('code_prompt') or ''}{record['canonical_solution']}"
    prompt: Any = {
        "question": AS_PUBLISHED.format(text=record.get("instruct_prompt") or record["complete_prompt"]),
        "reference": [record["test"]],
        "solution": solution,
    }
    if missing := missing_libraries(record.get("libs")):
        prompt["fault"] = f"its libraries are not installed: {', '.join(missing)}"
    return prompt


def missing_libraries(libs: Any) -> list[str]:
    """Return the libraries of a question that are not installed. `libs` is a list, or the text of one."""
    if isinstance(libs, str):
        try:
            libs = ast.literal_eval(libs)
        except (ValueError, SyntaxError):
            return [f"unreadable: {libs:.50}"]
    return [name for name in libs or [] if find_spec(str(name).partition(".")[0]) is None]


def as_tests(value: Any) -> list[str] | None:
    """Return the tests of a question as texts, or None if they are not a list of tests."""
    if not isinstance(value, list) or not value:
        return None
    tests = []
    for test in value:
        if isinstance(test, dict) and test.keys() == {"stdin", "stdout"}:
            test = json.dumps(test)
        if not isinstance(test, str):
            return None
        tests.append(test)
    return tests


def are_texts(value: Any) -> bool:
    """Return whether a value is a list of texts that is not empty."""
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)


READERS = {
    ("prompt", "test", "entry_point"): humaneval_prompt,
    ("text", "test_list"): mbpp_prompt,
    ("prompt", "test_list"): mbpp_prompt,
    ("question_content", "public_test_cases"): livecodebench_prompt,
    ("complete_prompt", "test", "entry_point"): bigcodebench_prompt,
}
