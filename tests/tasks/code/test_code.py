import json
import time

import pytest

from workflow_scripts import freeze_prompts
from workflow_scripts.core.records import BadInput, read_records
from workflow_scripts.core.sandbox import Sandbox
from workflow_scripts.core.sections import Data, Prompts
from workflow_scripts.tasks import code, load

TESTS = ["assert add(1, 2) == 3", "assert add(-1, 1) == 0", 'assert add("a", "b") == "ab", "{text}"']
RIGHT = "def add(a, b):\n    return a + b\n"
HALF = "def add(a, b):\n    return abs(a) + b if a == 1 else b - 1\n"  # the first two


@pytest.fixture(scope="module")
def run():
    with Sandbox(cpu_seconds=1, wall_seconds=3) as running:
        yield running


def graded(run, *programs: str, tests=TESTS) -> dict:
    text = "Let me see.\n" + "".join(f"```python\n{program}```\nThat's it.\n" for program in programs)
    return code.grade({"solution": text, "correct": json.dumps(tests)}, run)


@pytest.mark.parametrize(
    ("programs", "passed", "right", "any_program"),
    [
        ((RIGHT,), 3, True, True), ((HALF,), 2, False, False), ((RIGHT, HALF), 2, False, True),
        ((HALF, RIGHT), 3, True, True), ((), 0, False, False), (("def add(a, b) return",), 0, False, False),
        (("print('x' * 10**5)\n" + RIGHT,), 3, True, True),  # what it prints is not looked at
        (("from __future__ import annotations\n" + RIGHT,), 3, True, True),
        (("from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n" + RIGHT,), 3, True, True),
        ((RIGHT + "if __name__ == '__main__':\n    add(*input().split())\n",), 3, True, True),
    ],
)  # fmt: skip
def test_the_last_program_is_judged_by_its_tests(run, programs, passed, right, any_program):
    verdict = graded(run, *programs)
    assert (verdict["passed"], verdict["match"][0]["res"], verdict["any"]) == (passed / 3, right, any_program)
    assert verdict["key"] == ("pot" if programs else "cot")
    assert verdict["match"][0]["pred"] == (programs[-1] if programs else "")


@pytest.mark.parametrize(
    "program",
    [
        "raise SystemExit(0)\n", "import os\nos._exit(0)\n", "def add(a, b):\n    raise SystemExit(0)\n",
        "import builtins\nbuiltins.exec = lambda *_: None\n", "exec = print = run = show = lambda *_: None\n",
        "import sys\nsys.exit = print\nadd = lambda a, b: sys.exit(0)\n", "number, tests, mark = 3, [], ''\n",
        *(f"print({number})\nprint('mark', {number})\n" for number in range(3)),
        "import os\nfor number in range(3):\n    os.write(1, f' {number}\\n'.encode())\n",
        "def add(a, b):\n    import sys\n    sys.stdout.write('0\\n1\\n2\\n')\n",
    ],
)  # fmt: skip
def test_programs_that_dodge_the_tests_pass_none(run, program):
    assert graded(run, program)["passed"] == 0


def test_a_test_that_never_ends_costs_those_after_it_alone(run):
    started = time.monotonic()
    looping = "def add(a, b):\n    while a == -1:\n        pass\n    return a + b\n"
    assert graded(run, looping)["passed"] == 1 / 3
    assert time.monotonic() - started < 4


def test_a_faulty_test_fails_alone(run):
    assert graded(run, RIGHT, tests=["assert add(1, 2) ==", *TESTS])["passed"] == 3 / 4


def test_figures(run):
    answers = [((RIGHT,), "easy"), ((HALF,), "easy"), ((), "hard")]
    figures = code.summarise([graded(run, *programs) | {"level": level} for programs, level in answers])
    assert figures["accuracy"] == 1 / 3 and figures["code_share"] == 2 / 3 and figures["n"] == 3
    assert figures["passed"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    easy = {"accuracy": 0.5, "code_share": 1.0, "n": 2, "passed": pytest.approx(5 / 6)}
    assert figures["by_level"]["easy"] == easy and set(code.FIGURES) < set(figures)


def test_prompts_have_their_tests_as_answer(tmp_path):
    rows = [{"question": f"Add {i}.", "test_cases": TESTS} for i in range(2)]
    rows += [{"question": "Add none.", "test_cases": []}, {"question": "Add text.", "test_cases": "assert True"}]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    split = {"file": str(path), "limit": None, "count": None}
    settings = Prompts(train={"file": str(path)}, eval={"file": str(path)}, answer_key="test_cases").model_dump()
    good, rejects = freeze_prompts.validate(list(code.read_prompts(split, settings, "train", 0)), "train", set())
    assert [(json.loads(row["answer"]), row["question"]) for row in good] == [(TESTS, "Add 0."), (TESTS, "Add 1.")]
    assert [reject["reason"] for reject in rejects] == ["no answer", "no answer"]
    assert len(list(read_records(path))) == 4


def test_the_task_asks_in_one_way_and_is_complete():
    task = load("code")
    assert task.requests("q", "auto") == {"auto": "q"} and task.segments("a```output\nb```") == [
        ("a```output\nb```", True)
    ]
    assert task.reply("```python\nprint(1)\n```\n```output", lambda _: {"output": "1", "error": None}) is None
    with pytest.raises(BadInput, match=r"set generate\.trigger to null"):
        task.requests("q", "trigger")
    names = "MAKES_UP STOP read_prompts worked_examples requests reply segments grade construct_meta select summarise"
    assert all(hasattr(task, name) for name in names.split())


def test_graded_answers_become_training_rows(run):
    def answer(number: int, program: str) -> dict:
        record = {"id": "q", "uid": f"q.auto.{number}", "question": "Add.", "req": "User:Add.", "task": "t"}
        record |= {"solution": f"```python\n{program}```", "correct": json.dumps(TESTS), "trigger": "auto"}
        record |= {"prompt_tokens": [1], "tokens": [2, 3], "mask": [1, 1], "policy": "p", "finish": "eos"}
        return record | code.grade(record, run)

    meta = code.construct_meta([answer(0, RIGHT), answer(1, HALF)], dedup=False)
    settings = Data(tag="minimal", advantage="group_std").model_dump()
    rows, _ = code.select({"auto": meta}, settings, 0, None)
    assert [(row["qid"], row["advantage"]) for row in rows] == [("q.auto.0", 1.0), ("q.auto.1", -1.0)]
