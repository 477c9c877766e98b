"""Programs are judged by tests, and what a program does outside of its functions changes no verdict."""

import json
from pathlib import Path

import pytest

from tests.conversations import saved
from workflow_scripts import freeze_prompts, tasks
from workflow_scripts.config.sections import Data, Split
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.workers import Outcome, Workers
from workflow_scripts.tasks.code import trial
from workflow_scripts.tasks.code.grading import completed
from workflow_scripts.tasks.defaults import EnvironmentOptions

TESTS = ["assert add(1, 2) == 3", "assert add(-1, 1) == 0", 'assert add("a", "b") == "ab", "{text}"']
RIGHT = "def add(a, b):\n    return a + b\n"
HALF = "def add(a, b):\n    return abs(a) + b if a == 1 else b - 1\n"  # passes the first two tests
LIMITS = {"cpu_seconds": 1, "wall_seconds": 20}  # of each test
QUESTION = {"id": "q", "question": "Add.", "reference": TESTS, "level": "t"}


@pytest.fixture(scope="module")
def run():
    with Workers() as running:
        yield running


def text_of(*programs: str) -> str:
    """Return an answer with these programs."""
    return "Let me see.\n" + "".join(f"```python\n{program}```\nThat's it.\n" for program in programs)


def grade(run, *programs: str, tests: list[str] = TESTS, **settings) -> dict:
    """Return what grading adds to an answer with these programs."""
    grading = tasks.load("code", "Grading", {"limits": LIMITS} | settings)
    return grading.grade({"answer": text_of(*programs), "reference": tests}, run)


# ---------------------------------------------------------------- grading


@pytest.mark.parametrize(
    ("programs", "passed", "is_right", "any_right"),
    [
        ((RIGHT,), 3, True, True),
        ((HALF,), 2, False, False),
        ((RIGHT, HALF), 2, False, True),
        ((HALF, RIGHT), 3, True, True),
        ((), 0, False, False),
        (("def add(a, b) return",), 0, False, False),
        (("print('x' * 10**5)\n" + RIGHT,), 3, True, True),  # what it prints is not looked at
        (("from __future__ import annotations\n" + RIGHT,), 3, True, True),
        (("from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n" + RIGHT,), 3, True, True),
        ((RIGHT + "if __name__ == '__main__':\n    add(*input().split())\n",), 3, True, True),
    ],
)
def test_the_last_program_is_judged_by_its_tests(run, programs, passed, is_right, any_right):
    graded = grade(run, *programs)

    assert graded["passed"] == passed / 3
    assert graded["reward"] == float(is_right)
    assert graded["any_right"] == any_right
    assert graded["path"] == ("pot" if programs else "cot")
    assert graded["prediction"] == (programs[-1] if programs else "")


@pytest.mark.parametrize(
    "program",
    [
        "raise SystemExit(0)\n",
        "import os\nos._exit(0)\n",
        "def add(a, b):\n    raise SystemExit(0)\n",
        "import builtins\nbuiltins.exec = lambda *_: None\n",
        "exec = print = run = show = lambda *_: None\n",
        "import sys\nsys.exit = print\nadd = lambda a, b: sys.exit(0)\n",
        "number, tests, mark = 3, [], ''\n",
        *(f"print({number})\nprint('mark', {number})\n" for number in range(3)),
        "import os\nfor number in range(3):\n    os.write(1, f' {number}\\n'.encode())\n",
        "def add(a, b):\n    import sys\n    sys.stdout.write('0\\n1\\n2\\n')\n",
    ],
)
def test_programs_that_dodge_the_tests_pass_none(run, program):
    assert grade(run, program)["passed"] == 0


def test_a_test_that_never_ends_costs_itself_alone(run):
    looping = "def add(a, b):\n    while a == -1:\n        pass\n    return a + b\n"
    graded = grade(run, looping)

    assert graded["passed"] == 2 / 3
    assert "more than" in graded["failure"]  # 1 s of CPU, or on a busy machine 20 s


def test_the_calls_of_a_test_share_its_limit(run):
    slow = (
        "import time\ndef add(a, b):\n    end = time.process_time() + 0.4\n    while time.process_time() < end: pass\n"
    )
    slow += "    return a + b\n"
    many = "for i in range(20):\n    assert add(i, 1) == i + 1"
    graded = grade(run, slow, tests=["assert add(1, 2) == 3", many, "assert add(2, 2) == 4"])

    assert graded["passed"] == 2 / 3
    assert "more than" in graded["failure"]


def test_a_test_that_loops_itself_is_stopped_and_the_next_one_runs(run):
    endless = "while True:\n    add(1, 2)"
    graded = grade(run, RIGHT, tests=[endless, "while True: pass", "assert add(2, 2) == 4"])

    assert graded["passed"] == 1 / 3


def test_the_reward_may_be_the_share_of_tests(run):
    assert grade(run, HALF)["reward"] == 0
    assert grade(run, HALF, credit="share")["reward"] == 2 / 3
    assert grade(run, RIGHT, credit="share")["reward"] == 1


def test_memory_is_limited(run):
    greedy = "def add(a, b):\n    x = bytearray(300 * 2**20)\n    return a + b\n"

    assert grade(run, greedy)["passed"] == 1
    assert "MemoryError" in grade(run, greedy, limits=LIMITS | {"memory_mb": 200})["failure"]


def test_a_faulty_test_fails_alone(run):
    assert grade(run, RIGHT, tests=["assert add(1, 2) ==", *TESTS])["passed"] == 3 / 4


# ---------------------------------------------------------------- what tests may do

PROGRAM = """
import collections, dataclasses, numpy
class Stack:
    def __init__(self, items=()): self.items = list(items)
    def push(self, item): self.items.append(item)
    def pop(self): return self.items.pop()
    def __len__(self): return len(self.items)
    def __eq__(self, other): return self.items == other.items
    def __iter__(self): return iter(self.items)
@dataclasses.dataclass
class Point:
    x: int
    y: int
class Refused(ValueError): pass
Pair = collections.namedtuple("Pair", "a b")
def refuse(): raise Refused("no")
def sort_it(values): values.sort()
def pair(): return Pair(1, 2)
def squares(n):
    for i in range(n): yield i * i
def apply(function, value): return function(value)
def table(): return collections.Counter("aab")
def array(n): return numpy.arange(n) * 2.0
def greet(name): print("hello", name)
def sum(values):
    total = 0
    for value in values: total += value
    return total
def huge(): return 10 ** 5000
def nothing(): return None
def write(path, text):
    with open(path, "w") as file: file.write(text)
def length(path): return len(open(path).read())
def match(pattern, text):
    import re
    return re.match(pattern, text)
def plot(values):
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots()
    axes.plot(values)
    axes.set_title("values")
    return axes
def nested(): return {"a": [(1, 2.5), {3}], b"k": None, 1j: True}
"""
PASSING = {
    "methods": "s = Stack()\ns.push(3)\nassert len(s) == 1 and s.pop() == 3 and len(s) == 0",
    "objects of the program": "assert Stack([1]) == Stack([1]) and Point(1, 2) == Point(1, 2) != Point(2, 1)",
    "attributes": "p = Point(1, 2)\np.x = 5\nassert (p.x, p.y) == (5, 2) and isinstance(p, Point)",
    "iteration": "assert list(Stack([1, 2])) == [1, 2] and 2 in Stack([1, 2]) and 3 not in Stack([1, 2])",
    "exceptions": "try:\n    refuse()\n    assert False\nexcept Refused as fault:\n    assert str(fault) == 'no'",
    "built-in exceptions": "try:\n    Stack().pop()\n    assert False\nexcept IndexError:\n    pass",
    "changed arguments": "values = [3, 1, 2]\nassert sort_it(values) is None\nassert values == [1, 2, 3]",
    "named tuples": "assert pair() == (1, 2)",
    "generators": "assert list(squares(4)) == [0, 1, 4, 9] and next(squares(3)) == 0",
    "functions of the test": "assert apply(lambda value: value + 1, 3) == 4",
    "counters": "assert table() == {'a': 2, 'b': 1}",
    "arrays": "assert np.allclose(array(3), [0, 2, 4]) and array(3).dtype == float",
    "printing": "import io, contextlib\nout = io.StringIO()\nwith contextlib.redirect_stdout(out):\n    greet('you')\n"
    "assert out.getvalue() == 'hello you\\n'",
    "a name of Python": "assert sum([1, 2]) == 3",
    "huge integers": "assert huge() == 10 ** 5000",
    "None": "assert nothing() is None",
    "nested values": "assert nested() == {'a': [(1, 2.5), {3}], b'k': None, 1j: True}",
    "files": "write('a.txt', 'abc')\nassert open('a.txt').read() == 'abc'",
    "files of the test": "import os, tempfile\nwith tempfile.NamedTemporaryFile('w', delete=False) as file:\n"
    "    file.write('abcd')\nassert length(file.name) == 4\nos.unlink(file.name)",
    "objects of libraries": "import re\nfound = match('a(b)', 'abc')\nassert isinstance(found, re.Match)\n"
    "assert found.group(1) == 'b' and match('x', 'abc') is None",
    "plots": "import matplotlib.pyplot as plt\naxes = plot([1, 2, 3])\nassert isinstance(axes, plt.Axes)\n"
    "assert axes.get_title() == 'values' and len(axes.lines) == 1\n"
    "assert list(axes.lines[0].get_ydata()) == [1, 2, 3]",
    "unittest": "import unittest\nclass TestCases(unittest.TestCase):\n    def setUp(self):\n        self.n = 3\n"
    "    def test_it(self):\n        self.assertEqual(list(squares(self.n)), [0, 1, 4])\n"
    "        with self.assertRaises(ValueError):\n            refuse()",
    "a check": "def check(candidate):\n    for n in range(3):\n        assert len(list(candidate(n))) == n\n"
    "check(squares)",
}


@pytest.mark.parametrize("name", PASSING)
def test_tests_use_programs_as_if_they_were_their_own(run, name):
    graded = grade(run, PROGRAM, tests=[PASSING[name]])
    assert (graded["passed"], graded["failure"]) == (1, None)


STDIN_CASES = [
    ("print(int(input()) * 2)", "4\n", "8", True),
    ("print(int(input()) * 2)", "4\n", "9", False),
    ("import sys\nfor line in sys.stdin: print(line, end='  ')", "a b\nc\n", "a b\nc", True),
    ("print('1.50 2')", "", "1.5  2.0", True),
    ("print('yes\\n')", "", "yes", True),
    ("print('yes no')", "", "yes\nno", False),
    ("print('nan')", "", "inf", False),
    ("if __name__ == '__main__':\n    print('main')", "", "main", True),
    ("print('x')\nexit()", "", "x", True),
    ("print('x')\nraise SystemExit(2)", "", "x", False),
    ("import sys\nprint(len(sys.stdin.read()))", "x" * 500_000, "500000", True),
    ("print('x' * 500_000)", "", "x" * 500_000, True),
    ("print('never reads')", "x" * 500_000, "never reads", True),
]


@pytest.mark.parametrize(("program", "stdin", "stdout", "passes"), STDIN_CASES)
def test_programs_that_read_stdin_are_judged_by_what_they_print(run, program, stdin, stdout, passes):
    graded = grade(run, program + "\n", tests=[json.dumps({"stdin": stdin, "stdout": stdout})])
    assert graded["passed"] == passes


def test_a_script_that_loops_or_floods_is_stopped(run):
    for program, reason in (("while True: pass\n", "more than"), ("while True: print('x' * 10**6)\n", "more than")):
        assert reason in grade(run, program, tests=[json.dumps({"stdin": "", "stdout": "x"})])["failure"]


def test_equal_programs_are_tested_once_and_the_order_is_kept(run):
    grading = tasks.load("code", "Grading")
    answers = [{"answer": text_of(program), "reference": TESTS} for program in (RIGHT, HALF, RIGHT)]

    assert [graded["reward"] for graded in grading.grade_batch(answers, run)] == [1, 0, 1]


# ---------------------------------------------------------------- the other parts


def test_metrics_are_accuracy_and_the_share_of_tests_passed(run):
    evaluation = tasks.load("code", "Evaluation")
    answers = []
    for programs, level in (((RIGHT,), "easy"), ((HALF,), "easy"), ((), "hard")):
        answers.append(grade(run, *programs) | {"level": level})

    metrics = evaluation.summarise(answers)

    assert metrics["accuracy"] == 1 / 3
    assert metrics["n"] == 3
    assert metrics["passed"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert metrics["by_level"]["easy"] == {"accuracy": 0.5, "n": 2, "passed": pytest.approx(5 / 6)}
    assert set(evaluation.metrics) < set(metrics)


def test_prompts_have_their_tests_as_reference(tmp_path):
    records = [{"question": f"Add {i}.", "test_cases": TESTS} for i in range(2)]
    records += [{"question": "Add none.", "test_cases": []}, {"question": "Add text.", "test_cases": "assert True"}]
    path = saved(tmp_path / "a.jsonl", records)
    source = Split(file=path, answer_key="test_cases")

    good, rejects = freeze_prompts.read_set(tasks.load("code", "Prompts"), source, "train", "", 0, set())

    assert [(row["reference"], row["question"]) for row in good] == [(TESTS, "Add 0."), (TESTS, "Add 1.")]
    assert [reject["reason"] for reject in rejects] == ["no answer", "no answer"]


def test_the_task_asks_in_one_way_and_nothing_answers_the_policy():
    conversation = tasks.load("code", "Conversation")

    assert conversation.requests(QUESTION, "auto") == {"auto": "Add."}
    assert conversation.segments("a```output\nb```") == [("a```output\nb```", True)]
    with conversation.environment("auto", EnvironmentOptions()) as environment:
        assert environment.stop == ()
    with pytest.raises(BadInput, match=r"set generate\.trigger to null"):
        conversation.requests(QUESTION, "trigger")


def test_graded_answers_become_training_rows(run):
    selection = tasks.load("code", "Selection")
    answers = []
    for number, program in enumerate((RIGHT, HALF)):
        answer = QUESTION | {"uid": f"q.auto.{number}", "trigger": "auto", "prompt_text": "User:Add."}
        answer |= {"answer": text_of(program), "prompt_tokens": [1], "tokens": [2, 3], "mask": [1, 1]}
        answer |= {"policy": "p", "finish": "eos"}
        answers.append(answer | grade(run, program))

    meta = selection.construct_meta(answers, dedup=False)
    rows, _ = selection.select({"auto": meta}, Data(advantage="group_std").model_dump(), 0, None)

    assert [(row["uid"], row["advantage"]) for row in rows] == [("q.auto.0", 1.0), ("q.auto.1", -1.0)]
    assert rows[0]["reference"] == TESTS


def test_a_machine_without_room_stops_the_stage_and_grades_nothing():
    outcome = Outcome([[True, None], {"no room": "OSError: no space left on device"}], None)

    with pytest.raises(RuntimeError, match=r"no space left on device.*Nothing was graded"):
        completed(outcome, 3)
    assert completed(Outcome([[True, None]], "used more than 600 s of CPU"), 2) == [
        (True, None),
        (False, "it did not run: used more than 600 s of CPU"),
    ]


def test_a_message_that_utf8_cannot_encode_can_be_written(run):
    hostile = 'def add(a, b):\n    raise ValueError("\\ud800" * 9)\n# \ud800\n'
    for program in (hostile, hostile.split("#")[0], "raise ValueError('\\ud800')\n"):
        graded = grade(run, program)
        assert graded["passed"] == 0
        json.dumps(graded, ensure_ascii=False).encode()


@pytest.mark.parametrize("reference", [[], {}, "assert add(1, 2) == 3", [1], None])
def test_a_reference_that_is_no_list_of_tests_is_told(run, reference):
    with pytest.raises(BadInput, match=r"answer q\.1: the reference should be a list of tests"):
        tasks.load("code", "Grading").grade({"uid": "q.1", "answer": text_of(RIGHT), "reference": reference}, run)


def processes_below(pid: int) -> list[int]:
    """Return the children of a process, and theirs."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children] + [under for child in children for under in processes_below(int(child))]


def test_no_process_is_left():
    grading = tasks.load("code", "Grading", {"limits": LIMITS})
    programs = [
        RIGHT,
        RIGHT + "import os\nos._exit(0)\n",
        "while True: pass\n",
        "import os\nos.close(4)\nos.close(3)\n",
    ]

    with Workers(processes=1) as own:
        grading.grade_batch([{"answer": text_of(program), "reference": TESTS} for program in programs], own)
        [worker] = own.handlers[trial.__name__]
        assert processes_below(worker.pid) == []
