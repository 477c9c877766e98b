"""Data sets in their published columns: each question is graded with its own tests."""

import base64
import json
import pickle
import zlib

import pytest

from workflow_scripts import tasks
from workflow_scripts.config.sections import Prompts
from workflow_scripts.core.records import read_records
from workflow_scripts.core.workers import Workers
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

POLYNOMIAL = {  # as HumanEval/32: the prompt defines a function that the test calls
    "task_id": "HumanEval/932",
    "prompt": "import math\n\n\ndef poly(xs: list, x: float):\n    return sum(c * x**i for i, c in enumerate(xs))\n\n\n"
    'def find_zero(xs: list):\n    """Find a zero of poly."""\n',
    "canonical_solution": "    return -xs[0] / xs[1]\n",
    "test": "def check(candidate):\n    assert math.fabs(poly([2, 4], candidate([2, 4]))) < 1e-4\n",
    "entry_point": "find_zero",
}


def compressed(cases: list[dict]) -> str:
    """Return test cases as LiveCodeBench publishes the private ones."""
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(cases)))).decode()


LCB_STDIN = {
    "question_title": "Double",
    "question_content": "Double a number.",
    "platform": "atcoder",
    "question_id": "abc900_a",
    "difficulty": "easy",
    "starter_code": "",
    "public_test_cases": json.dumps([{"input": "4\n", "output": "8\n", "testtype": "stdin"}]),
    "private_test_cases": compressed([{"input": "50\n", "output": "100\n", "testtype": "stdin"}]),
    "metadata": "{}",
}
LCB_METHOD = LCB_STDIN | {
    "question_id": "3900",
    "platform": "leetcode",
    "starter_code": "class Solution:\n    def pair(self, values: List[int], n: int) -> List[int]:\n        ",
    "public_test_cases": json.dumps([{"input": "[1, 2]\n3", "output": "[3, 3]", "testtype": "functional"}]),
    "private_test_cases": compressed([{"input": "[]\n1", "output": "[0, 1]", "testtype": "functional"}]),
    "metadata": json.dumps({"func_name": "pair"}),
}
BIGCODEBENCH = {
    "task_id": "BigCodeBench/900",
    "complete_prompt": 'import random\nimport numpy as np\n\ndef task_func(n, seed):\n    """Draw n numbers."""\n',
    "instruct_prompt": "Draw n numbers.\nYou should write self-contained code starting with:\n```\nimport random\n```",
    "canonical_solution": "    random.seed(seed)\n    return np.array([random.random() for _ in range(n)])\n",
    "code_prompt": "import random\nimport numpy as np\n\ndef task_func(n, seed):\n",
    "test": "import unittest\nimport numpy as np\n\nclass TestCases(unittest.TestCase):\n"
    "    def test_length(self):\n        self.assertEqual(len(task_func(3, 1)), 3)\n"
    "    def test_seed(self):\n        np.testing.assert_array_equal(task_func(3, 1), task_func(3, 1))\n"
    "    def test_type(self):\n        self.assertIsInstance(task_func(1, 1), np.ndarray)\n",
    "entry_point": "task_func",
    "doc_struct": "{}",
    "libs": "['random', 'numpy']",
}


@pytest.fixture(scope="module")
def run():
    with Workers() as running:
        yield running


def frozen(folder, *records: dict) -> list[dict]:
    """Return the prompts that a file of these records gives."""
    file = folder / "published.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    section = Prompts.model_validate({"eval": {"file": str(file)}})
    freeze(tasks.load("code", "Prompts"), section, 0, folder / "prompts", tasks.load("code", "Grading"))
    return list(read_records(folder / "prompts/eval.parquet"))


PUBLISHED = {
    "HumanEval": HUMANEVAL,
    "HumanEval with a helper": POLYNOMIAL,
    "MBPP": MBPP,
    "MBPP sanitized": SANITIZED,
    "BigCodeBench": BIGCODEBENCH,
}


@pytest.mark.parametrize("record", PUBLISHED.values(), ids=PUBLISHED)
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


def test_a_helper_of_the_prompt_cannot_be_redefined(tmp_path, run):
    [prompt] = frozen(tmp_path, POLYNOMIAL)
    cheat = "```python\ndef poly(xs, x): return 0\ndef find_zero(xs): return 7\n```"

    assert tasks.load("code", "Grading").grade(prompt | {"answer": cheat}, run)["passed"] == 0


LCB_ANSWERS = [
    (LCB_STDIN, "print(2 * int(input()))\n", 1),
    (LCB_STDIN, "print(8)\n", 0.5),
    (LCB_METHOD, "class Solution:\n    def pair(self, values, n):\n        return sum(values), n\n", 1),
    (LCB_METHOD, "class Solution:\n    def pair(self, values, n):\n        return [3, 3]\n", 0.5),
]


@pytest.mark.parametrize(("record", "program", "passed"), LCB_ANSWERS)
def test_livecodebench_has_public_and_private_tests(tmp_path, run, record, program, passed):
    [prompt] = frozen(tmp_path, record)
    graded = tasks.load("code", "Grading").grade(prompt | {"answer": f"```python\n{program}```"}, run)

    assert (prompt["id"], prompt["level"]) == (record["question_id"], "easy")
    assert record["starter_code"] in prompt["question"]
    assert graded["passed"] == passed


def test_questions_that_cannot_be_tested_are_rejected(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("executed",))

    evil = base64.b64encode(zlib.compress(pickle.dumps(Evil()))).decode()
    frozen(tmp_path, LCB_STDIN, LCB_STDIN | {"question_id": "b", "question_content": "b", "private_test_cases": evil})
    [reject] = read_records(tmp_path / "prompts/rejects.jsonl")
    assert (reject["id"], reject["reason"][:30]) == ("b", "its tests cannot be read: the ")

    missing = BIGCODEBENCH | {"task_id": "b", "instruct_prompt": "b", "libs": "['random', 'no_such_library']"}
    frozen(tmp_path, BIGCODEBENCH, missing)
    [reject] = read_records(tmp_path / "prompts/rejects.jsonl")
    assert reject["reason"] == "its libraries are not installed: no_such_library"


def test_tests_in_a_file_of_ones_own_may_be_objects(tmp_path):
    cases = [{"stdin": "1", "stdout": "2"}, "assert f(1) == 2"]
    [prompt] = frozen(tmp_path, {"question": "Q?", "test_cases": cases})
    assert prompt["reference"] == [json.dumps(cases[0]), cases[1]]


@pytest.mark.parametrize("record", [ACECODE, LCB_STDIN, MBPP], ids=["AceCode", "LiveCodeBench", "MBPP"])
def test_the_scripted_answers_of_a_rehearsal_differ(tmp_path, run, record):
    [prompt] = frozen(tmp_path, record)
    right, wrong = tasks.load("code", "Rehearsal").answers(prompt)
    grading = tasks.load("code", "Grading")
    rewards = [grading.grade(prompt | {"answer": "".join(answer.turns)}, run)["reward"] for answer in (right, wrong)]

    assert rewards == [1, 0]
