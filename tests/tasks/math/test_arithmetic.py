"""The made-up questions and their worked answers."""

import pytest

from workflow_scripts import tasks
from workflow_scripts.config.sections import Split
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.workers import Workers
from workflow_scripts.tasks.math import arithmetic


def read(name: str, count: dict[str, int], seed: int = 0) -> list[dict]:
    """Return the made-up prompts of a split."""
    return list(tasks.load("math", "Prompts").read(Split(count=count).model_dump(), name, seed))


def test_train_and_eval_are_disjoint_and_seeded():
    count = dict.fromkeys(arithmetic.LEVELS, 100)
    train, held_out = read("train", count), read("eval", count)
    questions = {prompt["question"] for prompt in train}

    assert len(questions) == len(train) == 300
    assert not questions & {prompt["question"] for prompt in held_out}
    assert train == read("train", count) != read("train", count, seed=1)
    assert all(int(prompt["reference"]) >= 0 for prompt in train)

    facts = {split: set(arithmetic.facts("two_digit_product", split)) for split in ("train", "eval")}
    assert facts["train"] and facts["eval"]
    assert not facts["train"] & facts["eval"]


def test_more_questions_than_exist_are_an_error():
    with pytest.raises(BadInput, match=r"one_digit: 1000000 questions requested, only \d+ exist"):
        read("train", {"one_digit": 10**6})


def test_an_unknown_level_is_an_error():
    with pytest.raises(BadInput, match="there is no level 'three_digit'; levels are one_digit, "):
        read("train", {"three_digit": 1})


def test_worked_examples_are_right_and_prefer_no_path_at_any_level():
    counts = {level: {"direct": 200, "code": 300} for level in arithmetic.LEVELS}
    cold_start = tasks.load("math", "ColdStart")
    grading = tasks.load("math", "Grading")
    examples = list(cold_start.examples({"file": None, "count": counts}, 0))
    assert len(examples) == 1500

    with Workers() as run:
        for example in examples[::50]:
            a, sign, b = example["question"].rstrip(".?").split()[-3:]
            answer = "".join(piece for piece, _ in example["pieces"])
            reference = str(arithmetic.APPLY[sign](int(a), int(b)))
            assert grading.grade({"answer": answer, "reference": reference}, run)["reward"] == 1

    auto = [example for example in examples if example["trigger"] == "auto"]
    share = sum(len(example["pieces"]) == 2 for example in auto) / len(auto)
    assert abs(share - arithmetic.AUTO_CODE) < 0.01


def test_worked_examples_need_a_number_of_each_kind():
    cold_start = tasks.load("math", "ColdStart")

    with pytest.raises(BadInput, match=r"cold_start\.count\.one_digit: give `direct` and `code`"):
        list(cold_start.examples({"file": None, "count": {"one_digit": 5}}, 0))
