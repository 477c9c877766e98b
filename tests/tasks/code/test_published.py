"""HumanEval, MBPP and AceCode in their published columns: each question is graded with its own tests."""

import json

import pytest

from workflow_scripts import tasks
from workflow_scripts.config.sections import Prompts
from workflow_scripts.core.records import read_records
from workflow_scripts.core.sandbox import Sandbox
from workflow_scripts.freeze_prompts import freeze

HUMANEVAL = {
    "task_id": "HumanEval/900",
    "prompt": 'from typing import List\n\n\ndef double(values: List[int]) -> List[int]:\n    """Double them."""\n',
    "canonical_solution": "    return [2 * value for value in values]\n",
    "test": "\n\nMETADATA = {}\n\n\ndef check(candidate):\n    assert candidate([1]) == [2]\n",
    "entry_point": "double",
}
MBPP = {
    "task_id": 901,
    "text": "Write a function to find the area of a circle.",
    "code": "import math\ndef area(r):\n    return math.pi * r * r",
    "test_list": ["assert math.isclose(area(1), math.pi)", "assert area(0) == 0"],
    "test_setup_code": "import math",
    "challenge_test_list": [],
}
SANITIZED = {
    "source_file": "Benchmark.ipynb",
    "task_id": 902,
    "prompt": MBPP["text"],
    "code": MBPP["code"],
    "test_imports": ["import math"],
    "test_list": MBPP["test_list"],
}
ACECODE = {
    "id": "oss_1",
    "question": "Write `add`, which adds two numbers.",
    "test_cases": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"],
    "inferences": [{"model_name": "m", "completions": ["def add(a, b): return a + b"], "pass_rate": 1.0}],
}


@pytest.fixture(scope="module")
def run():
    with Sandbox() as running:
        yield running


def frozen(folder, *records: dict) -> list[dict]:
    """Return the prompts that a file of these records gives."""
    file = folder / "published.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    section = Prompts.model_validate({"eval": {"file": str(file)}})
    freeze(tasks.load("code", "Prompts"), section, 0, folder / "prompts", tasks.load("code", "Grading"))
    return list(read_records(folder / "prompts/eval.parquet"))


@pytest.mark.parametrize("record", [HUMANEVAL, MBPP, SANITIZED], ids=["HumanEval", "MBPP", "MBPP sanitized"])
def test_the_published_solution_passes_the_published_tests(tmp_path, run, record):
    [prompt] = frozen(tmp_path, record)
    grading = tasks.load("code", "Grading")
    graded = grading.grade(prompt | {"answer": grading.right_answer(prompt)}, run)

    assert (graded["reward"], graded["passed"]) == (1, 1)
    assert prompt["id"] == str(record["task_id"])
    wrong = grading.grade(prompt | {"answer": "```python\ndef double(v): return v\ndef area(r): return r\n```"}, run)
    assert wrong["reward"] == 0


def test_questions_show_what_the_answer_needs(tmp_path):
    assert HUMANEVAL["prompt"] in frozen(tmp_path, HUMANEVAL)[0]["question"]
    for record in (MBPP, SANITIZED):
        [prompt] = frozen(tmp_path, record)
        assert prompt["question"].startswith(MBPP["text"])
        assert "assert area(0) == 0" in prompt["question"]  # only the tests name the function


def test_acecode_and_one_file_with_bad_tests(tmp_path, run):
    [prompt] = frozen(tmp_path, ACECODE, ACECODE | {"id": "oss_2", "question": "Write `sub`.", "test_cases": []})
    answer = f"```python\n{ACECODE['inferences'][0]['completions'][0]}\n```"

    assert tasks.load("code", "Grading").grade(prompt | {"answer": answer}, run)["reward"] == 1
    [reject] = read_records(tmp_path / "prompts/rejects.jsonl")
    assert (reject["id"], reject["reason"]) == ("oss_2", "no answer")
