"""Test what a round trains on: answers on the better path, and what the switches add."""

import pytest

from tests.tasks.math.answers import graded
from workflow_scripts import tasks
from workflow_scripts.config.sections import Data
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.records import MetaEntry


def construct_meta(answers, dedup: bool = False) -> dict:
    return tasks.load("math", "Selection").construct_meta(answers, dedup)


def select(answers, triggered=(), switches=("keeptrigger",), **data):
    """Return the rows and what was dropped."""
    selection = tasks.load("math", "Selection", {"switches": list(switches)})
    metas = {"auto": construct_meta(answers)}
    if triggered:
        metas["trigger"] = construct_meta(triggered)

    settings = Data(**data).model_dump()
    return selection.select(metas, settings, 0, lambda pieces: ([9] * len(pieces), [1] * len(pieces)))


# ---------------------------------------------------------------- meta files


def test_a_meta_entry_has_the_prompt_once_and_counts_every_answer():
    answers = [graded("q", "cot", True, number=i, text="same") for i in range(3)]
    answers.append(graded("q", "pot", False, number=3))
    [entry] = construct_meta(answers).values()

    assert set(entry) == set(MetaEntry.__annotations__) | {"right", "total"}
    assert (entry["right"], entry["total"]) == ({"cot": 3, "pot": 0}, {"cot": 3, "pot": 1})
    assert not {"question", "reference", "level"} & set(entry["answers"][0])
    assert {"uid", "answer", "reward", "path", "trigger", "prompt_text"} <= set(entry["answers"][0])


def test_equal_answers_count_once_only_if_asked_to():
    answers = [graded("q", "cot", True, number=i, text="same") for i in range(3)]

    assert construct_meta(answers, dedup=True)["q"]["total"]["cot"] == 1
    assert construct_meta(answers, dedup=False)["q"]["total"]["cot"] == 3


def test_the_manifest_counts_answers_by_path():
    meta = construct_meta([graded("q", "cot", True), graded("r", "pot", False), graded("r", "pot", True, number=1)])

    counts = tasks.load("math", "Selection").counts(meta)
    assert counts == {"cot_right": 1, "cot_total": 1, "pot_right": 1, "pot_total": 2}


def test_an_unclosed_program_is_no_right_answer():
    assert construct_meta([graded("q", "pot", True, text="```python\nprint(1)")]) == {}


# ---------------------------------------------------------------- the better path


def test_code_is_chosen_only_where_it_is_more_accurate():
    hard = [graded("hard", "cot", False, number=i) for i in range(4)] + [graded("hard", "pot", True, number=9)]
    even = [graded("even", "cot", True, number=0), graded("even", "pot", True, number=1)]
    rows, dropped = select(hard + even)

    assert {(row["question"], row["kind"], row["reward"]) for row in rows} == {
        ("hard", "pot.auto.better", 1.0),
        ("even", "cot.auto.better", 1.0),
    }
    assert dropped == {"auto answer by cot where pot is better": 4, "auto answer by pot where cot is better": 1}


def test_the_switch_all_keeps_both_paths():
    rows, dropped = select([graded("q", "cot", True), graded("q", "pot", True, number=1)], switches=("all",))

    assert {row["kind"] for row in rows} == {"cot.auto.better", "pot.auto.better"}
    assert not dropped


def test_wrong_answers_by_the_better_path_stay_as_negatives():
    rows, _ = select([graded("q", "cot", right, number=i) for i, right in enumerate((True, True, False))])

    assert [(row["reward"], row["advantage"]) for row in rows] == [(1.0, 1.0), (1.0, 1.0), (0.0, -1.0)]


def test_questions_never_answered_right_are_dropped_and_counted():
    rows, dropped = select([graded("q", "cot", False)])

    assert rows == []
    assert dropped == {"question never answered right": 1}


def test_of_groups_without_variance_the_right_ones_stay():
    answers = [graded("easy", "cot", True, number=i) for i in range(2)]
    answers += [graded("even", "cot", i < 1, number=i) for i in range(2)]
    rows, dropped = select(answers, advantage="group")

    assert [(row["question"], row["advantage"]) for row in rows] == [
        ("easy", 1.0),
        ("easy", 1.0),
        ("even", 0.5),
        ("even", -0.5),
    ]
    assert not dropped

    rows, dropped = select(answers, switches=("all", "mixed"), advantage="group")
    assert [(row["question"], row["advantage"]) for row in rows] == [("even", 0.5), ("even", -0.5)]
    assert dropped == {"answer in a group without variance": 2}


# ---------------------------------------------------------------- triggered answers


def test_accuracies_are_over_both_versions():
    """Triggered programs are right more often than the auto answers on the other path."""
    auto = [graded("q", "cot", True), graded("q", "cot", False, number=1)]
    triggered = [graded("q", "pot", True, "pot", i) for i in range(2)]
    rows, dropped = select(auto, triggered)

    assert dropped["auto answer by cot where pot is better"] == 2
    assert [row["kind"] for row in rows] in ([], ["pot.trigger.trigger"])  # thinned out by half: the path is easy
    for row in rows:
        assert row["source"] == "explore.t.pot"
        assert row["prompt_text"].endswith("Let's write a program.\n")


def test_triggered_answers_are_kept_by_a_switch_and_one_for_each_path():
    auto = [graded("q", "cot", True), graded("q", "cot", False, number=1)]
    triggered = [graded("q", "pot", i < 1, "pot", i) for i in range(4)]

    rows, dropped = select(auto, triggered, switches=())
    assert {row["kind"] for row in rows} == {"cot.auto.better"}

    rows, dropped = select(auto, triggered, switches=("keeptrigger",))
    assert [row["kind"] for row in rows].count("pot.trigger.trigger") == 1
    assert dropped["further triggered answer"] == 3


def test_a_triggered_answer_by_the_other_path_is_not_kept():
    auto = [graded("q", "cot", True), graded("q", "cot", False, number=1)]
    triggered = [graded("q", "cot", True, "pot"), graded("q", "cot", False, "pot", 1)]
    rows, dropped = select(auto, triggered)

    assert {row["kind"] for row in rows} == {"cot.auto.better"}
    assert dropped["triggered answer by the other path"] == 2


# ---------------------------------------------------------------- spliced answers


def test_spliced_answers_are_foreign():
    wrong = [graded("q", "cot", False, number=i, text="line\n" * 20) for i in range(20)]
    right = graded("q", "pot", True, number=99)
    rows, _ = select([*wrong, right], switches=("negbetter",))

    spliced = [row for row in rows if row["uid"].endswith(".modified")]
    assert 3 < len(spliced) < 17

    row = spliced[0]
    assert (row["policy"], row["reward"], row["kind"]) == ("foreign", 1.0, "cot.auto.cotnegbetter")
    assert row["answer"].count("line\n") == 10
    assert "better to write a program" in row["answer"]
    assert row["answer"].endswith(right["answer"])


# ---------------------------------------------------------------- order and repetition


def test_an_answer_that_comes_twice_is_an_error():
    with pytest.raises(BadInput, match=r"the answer q\.auto\.0 occurs 2 times"):
        select([graded("q", "cot", True), graded("q", "cot", True)])


def test_selection_does_not_depend_on_the_order_of_records():
    answers = [graded(f"q{i}", "cot", i % 3 > 0, number=j) for i in range(9) for j in range(3)]
    ordered, _ = select(answers)
    turned, _ = select(answers[::-1])

    assert sorted(row["uid"] for row in ordered) == sorted(row["uid"] for row in turned)
