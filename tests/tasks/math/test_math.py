import copy

import pytest
from conftest import REPOSITORY

from workflow_scripts.core import answers
from workflow_scripts.core.records import BadInput, write_pickle
from workflow_scripts.core.sandbox import Sandbox
from workflow_scripts.core.sections import Data
from workflow_scripts.tasks import arithmetic, math

DIRECT = "There are 3 + 4 = 7 eggs.\nThe answer is $\\boxed{7}$."
PROGRAM = "```python\nprint(3 * 50)\n```\n```output\n150\n```\nHe gathered $\\boxed{50}$ apples."
SILENT = "Let's write a program.\n```python\ndef f():\n    return 6 * 7\nprint(f())\n```"


@pytest.fixture(scope="module")
def run():
    with Sandbox() as running:
        yield running


@pytest.mark.parametrize(
    ("answer", "gold", "same"),
    [
        ("18", "18", True), ("18.0", "18", True), ("$1,234$", "1234", True), ("\\frac{3}{4}", "0.75", True),
        ("3.1416", "3.14159", True), ("15.67", "15", False), ("140", "160", False), ("", "3", False),
        ("28\\%", "28", True), ("x = 5", "5", True), ("2\\sqrt{2}", "sqrt(8)", True), ("2^{3}", "8", True),
        ("1/0", "1", False), ("9" * 200, "3", False), ("\\text{Tuesday}", "Tuesday", True),
        ("Monday", "Monday", True),
    ],
)  # fmt: skip
def test_equality_of_answers(run, answer, gold, same):
    assert answers.equal(answer, gold, run) is same


@pytest.mark.parametrize(
    ("solution", "gold", "final", "any_attempt", "key"),
    [
        (DIRECT, "7", True, True, "cot"),
        (DIRECT, "8", False, False, "cot"),
        (PROGRAM, "150", False, True, "pot"),  # the program was right, the conclusion is not
        (PROGRAM, "50", True, True, "pot"),
        (SILENT, "42", True, True, "pot"),
        ("I do not know.", "1", False, False, "cot"),
        ("```python\nwhile True: pass", "1", False, False, "pot"),
        ("The answer is 1/2.", ["0.5", 0.5], True, True, "cot"),
    ],
)
def test_grading(run, solution, gold, final, any_attempt, key):
    verdict = math.grade({"solution": solution, "correct": gold}, run)
    assert (verdict["match"][0]["res"], verdict["any"], verdict["key"]) == (final, any_attempt, key)


def test_imported_texts_are_cut_where_the_environment_spoke():
    assert math.segments(PROGRAM) == [
        ("```python\nprint(3 * 50)\n```\n```output", True),
        ("\n150\n```\n", False),
        ("He gathered $\\boxed{50}$ apples.", True),
    ]
    assert "".join(text for text, _ in math.segments(PROGRAM)) == PROGRAM


def test_the_environment_runs_the_last_program(run):
    assert math.reply("```python\nprint(6 * 7)\n```\n```output", run) == "\n42\n```\n"
    assert "ZeroDivisionError" in math.reply("```python\n1 / 0\n```\n```output", run)
    assert math.reply("```output", run) is None
    assert math.reply("The answer is 3.", run) is None


def graded(question, key, right, trigger="auto", number=0, text=None):
    asked = question + math.TRIGGERS.get(trigger, "")
    default = f"{key} {right} {number}" + (" ```python\nprint(1)\n```" if key == "pot" else "")
    return {
        "question": asked, "solution": default if text is None else text, "correct": "1", "req": f"User:{asked}",
        "task": "t", "key": key, "match": [{"pred": "1", "res": right}], "trigger": trigger, "id": question,
        "uid": f"{question}.{trigger}.{number}", "prompt_tokens": [1], "tokens": [2, 3], "mask": [1, 1],
        "policy": "p", "finish": "eos",
    }  # fmt: skip


SETTINGS = Data().model_dump() | {"tag": "keeptrigger"}


def select(records, triggered=(), **changes):
    metas = {"auto": math.construct_meta(records, False)}
    if triggered:
        metas["trigger"] = math.construct_meta(triggered, False)
    return math.select(metas, SETTINGS | changes, 0, lambda pieces: ([9] * len(pieces), [1] * len(pieces)))


def test_meta_has_the_originals_fields_and_counts_every_answer():
    same = [graded("q", "cot", True, number=i, text="same") for i in range(3)] + [graded("q", "pot", False, number=3)]
    meta = math.construct_meta(same, dedup=False)["q"]
    assert {"req", "task", "correct", "resps", "cot_nc", "cot_nt", "pot_nc", "pot_nt"} <= set(meta)
    assert (meta["cot_nc"], meta["cot_nt"], meta["pot_nc"], meta["pot_nt"]) == (3, 3, 0, 1)
    assert math.construct_meta(same, dedup=True)["q"]["cot_nt"] == 1
    assert {"match", "text", "logp", "req", "native"} <= set(meta["resps"]["cot"][0])


def test_triggered_answers_count_for_the_raw_question():
    meta = math.construct_meta([graded("q", "pot", True, "pot"), graded("q", "pot", True, "cot", 1)], False)
    assert [response["native"] for response in meta["q"]["resps"]["pot"]] == [True, False]


def test_an_unclosed_program_is_no_right_answer():
    assert math.construct_meta([graded("q", "pot", True, text="```python\nprint(1)")], False) == {}


def test_code_is_chosen_only_where_it_is_more_accurate():
    hard = [graded("hard", "cot", False, number=i) for i in range(4)] + [graded("hard", "pot", True, number=9)]
    even = [graded("even", "cot", True, number=0), graded("even", "pot", True, number=1)]
    rows, dropped = select(hard + even)
    assert {(row["instruction"], row["type"], row["neg"]) for row in rows} == {
        ("hard", "pot.auto.better", False), ("even", "cot.auto.better", False),
    }  # fmt: skip
    assert dropped == {"auto answer by cot where pot is better": 4, "auto answer by pot where cot is better": 1}


def test_wrong_answers_by_the_better_path_stay_as_negatives():
    rows, _ = select([graded("q", "cot", right, number=i) for i, right in enumerate((True, True, False))])
    assert [(row["neg"], row["advantage"]) for row in rows] == [(False, 1.0), (False, 1.0), (True, -1.0)]


def test_both_metas_are_pooled():
    auto = [graded("q", "cot", True), graded("q", "cot", False, number=1)]
    triggered = [graded("q", "pot", True, "pot", i) for i in range(2)]
    rows, _ = select(auto, triggered)
    assert [row["type"] for row in rows] in ([], ["pot.trigger.trigger"])  # thinned out by half: it is easy
    assert all(row["source"] == "explore.t.pot" and row["trigger_value"] == math.TRIGGERS["pot"] for row in rows)


def test_splices_are_nobodys_own():
    wrong = [graded("q", "cot", False, number=i, text="line\n" * 20) for i in range(20)]
    rows, _ = select(wrong + [graded("q", "pot", True, number=99)], tag="negbetter")
    spliced = [row for row in rows if row["qid"].endswith(".modified")]
    assert 3 < len(spliced) < 17
    row = spliced[0]
    assert row["policy"] == "foreign" and not row["neg"] and row["type"] == "cot.auto.cotnegbetter"
    assert row["output"].count("line\n") == 10 and "better to write a program" in row["output"]
    assert row["output"].endswith(graded("q", "pot", True, number=99)["solution"])


def test_questions_never_answered_right_are_dropped_and_counted():
    rows, dropped = select([graded("q", "cot", False)])
    assert rows == [] and dropped == {"question never answered right": 1}


def test_an_answer_twice_is_an_error():
    with pytest.raises(BadInput, match=r"qid q\.auto\.0 occurs 2 times"):
        select([graded("q", "cot", True), graded("q", "cot", True)])


def test_of_groups_without_variance_the_right_ones_stay():
    records = [graded("easy", "cot", True, number=j) for j in range(2)]
    records += [graded("even", "cot", j < 1, number=j) for j in range(2)]
    rows, dropped = select(records, advantage="group")
    assert [(row["instruction"], row["advantage"]) for row in rows] == [
        ("easy", 1.0), ("easy", 1.0), ("even", 0.5), ("even", -0.5),
    ]  # fmt: skip
    assert not dropped


def test_selection_does_not_depend_on_the_order_of_records():
    records = [graded(f"q{i}", "cot", i % 3 > 0, number=j) for i in range(9) for j in range(3)]
    ordered, _ = select(copy.deepcopy(records))
    turned, _ = select(records[::-1])
    assert sorted(row["qid"] for row in ordered) == sorted(row["qid"] for row in turned)


# ---------------------------------------------------------------- the miniature


def test_train_and_eval_are_disjoint_and_seeded():
    def read(name, seed=0):
        split = {"file": None, "limit": None, "count": dict.fromkeys(arithmetic.LEVELS, 100)}
        return list(arithmetic.read_prompts(split, {}, name, seed))

    train, held_out = read("train"), read("eval")
    assert len({record["question"] for record in train}) == len(train) == 300
    assert not {record["question"] for record in train} & {record["question"] for record in held_out}
    assert train == read("train") != read("train", seed=1)
    facts = {level: set(arithmetic.facts(level, "train")) for level in arithmetic.LEVELS}
    assert not facts["two_digit_product"] & set(arithmetic.facts("two_digit_product", "eval"))
    assert all(int(record["answer"]) >= 0 for record in train)


def test_more_questions_than_there_are_is_an_error():
    split = {"file": None, "limit": None, "count": {"one_digit": 10**6}}
    with pytest.raises(BadInput, match=r"one_digit: 1000000 questions asked, there are \d+"):
        list(arithmetic.read_prompts(split, {}, "train", 0))


def test_worked_examples_are_right_and_show_no_preference_by_level(run):
    counts = {level: {"direct": 200, "code": 300} for level in arithmetic.LEVELS}
    examples = list(arithmetic.worked_examples({"file": None, "count": counts}, 0))
    assert len(examples) == 1500
    for example in examples[::50]:
        a, sign, b = example["question"].rstrip(".?").replace(" =", "").split()[-3:]
        text = "".join(piece for piece, _ in example["pieces"])
        assert math.grade({"solution": text, "correct": str(eval(f"{a}{sign}{b}"))}, run)["match"][0]["res"]
    auto = [example for example in examples if example["trigger"] == "auto"]
    share = sum(len(example["pieces"]) == 2 for example in auto) / len(auto)
    assert abs(share - arithmetic.AUTO_CODE) < 0.01


# ---------------------------------------------------------------- files of the original


def test_results_in_the_originals_format_are_graded_from_the_command_line(tmp_path):
    import subprocess
    import sys

    def record(question, solution, correct, stored):
        return {"question": question, "solution": solution, "correct": correct, "req": f"User:{question}\n\nAssistant:",
                "match": [{"pred": "", "res": stored}], "task": "gsm8k"}  # fmt: skip

    write_pickle(tmp_path / "in.pkl", [
        record("a", DIRECT, "7", True), record("b", PROGRAM, "150", True), record("c", SILENT, "42", True),
        record("d", DIRECT, "9", True),
    ])  # fmt: skip
    command = "-m workflow_scripts.grade --task math --results in.pkl --output out.pkl".split()
    done = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True,
                          env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"})  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "accuracy=0.5000 accuracy_any=0.7500 code_share=0.5000 n=4 agreement=0.7500"


@pytest.mark.parametrize(
    ("text", "gold", "right"),
    [
        ("The answer is 18, because it is.", "18", True), ("So 7, done", "7", True),
        ("The answer is **18**.", "18", True),
        ("The answer is $\\frac{1}{2}$.", "1/2", True), ("The answer is 2\\sqrt{3}.", "2", False),
        ("The answer is 2\\sqrt{3}.", "2\\sqrt{3}", True), ("The answer is 5x+3.", "5", False),
        ("\\boxed{1\\frac{1}{2}}", "3/2", True), ("\\boxed{1 1}", "11", False), ("The answer is 3 / 4.", "3/4", True),
        ("The answer is \u22125.", "-5", True), ("\\boxed{2^{10}}", "1024", True), ("\\boxed{\\frac13}", "1/3", True),
        ("\\boxed{\\text{Evelyn}}", "\\text{Evelyn}", True), ("\\boxed{18 dollars}", "18", True),
        ("\\boxed{18 \\text{ cm}^2}", "18", True), ("\\boxed{90^{\\circ}}", "90^\\circ", True),
        ("I think \\boxed{print(True)}", "18", False), ("\\boxed{print(True)}", "x+1", False),
        ("\\boxed{x+1}", "1+x", True), ("The answer is 1,234.", "1234", True),
    ],
)  # fmt: skip
def test_answers_as_they_are_written(run, text, gold, right):
    assert math.grade({"solution": text, "correct": gold}, run)["match"][0]["res"] is right


@pytest.mark.parametrize("text", ["\\boxed{" * 50_000, "answer is" + " " * 100_000 + ".", "1" * 100_000, "{" * 100_000])
def test_grading_long_odd_texts_takes_no_time(run, text):
    import time

    started = time.monotonic()
    math.grade({"solution": text, "correct": "1"}, run)
    assert time.monotonic() - started < 2
