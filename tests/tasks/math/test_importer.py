"""AutoCode's meta files and offline data, read into this project's form."""

import sys

import pytest

from tests.tasks.math.answers import graded
from workflow_scripts import tasks
from workflow_scripts.config.sections import Data
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.pickles import read_pickle, write_pickle
from workflow_scripts.tasks.math import export_autocode


def entry(**changes) -> dict:
    """Return an entry of a meta file as the original system writes it."""
    responses = {
        "cot": [{"match": False, "text": "It is 5.", "logp": None, "req": "User:2+2?\n\nAssistant:", "native": True}],
        "pot": [
            {"match": True, "text": "```python\nprint(2+2)\n```", "logp": None, "req": "P", "native": True},
            {"match": [{"pred": "5", "res": False}], "text": "print(5)", "logp": None, "req": "P", "native": False},
        ],
    }
    counts = {"cot_nc": 0, "cot_nt": 1, "pot_nc": 1, "pot_nt": 3}
    return (
        {"req": "User:2+2?\n\nAssistant:", "task": "gsm8k", "correct": ["4", 4.0], "resps": responses}
        | counts
        | changes
    )


def offline(**changes) -> dict:
    """Return a record of offline data as the original system writes it."""
    return {
        "qid": "7.pot.trigger.0",
        "req": "User:2+2?\n\nAssistant:",
        "gold": "4",
        "type": "pot.trigger.trigger",
        "instruction": "2+2?",
        "output": "```python\nprint(2+2)\n```",
        "source": "explore.gsm8k.pot",
        "trigger_value": "",
        "neg": False,
        "logp": None,
    } | changes


@pytest.fixture
def importer():
    return tasks.load("math", "Importer")


# ---------------------------------------------------------------- meta files


def test_a_meta_entry_keeps_answers_verdicts_and_counts(importer):
    converted = importer.convert_meta("2+2?", entry(), "auto", "f")

    assert (converted["reference"], converted["level"]) == ("4", "gsm8k")
    assert [answer["reward"] for answer in converted["answers"]] == [0.0, 1.0, 0.0]
    assert [answer["path"] for answer in converted["answers"]] == ["cot", "pot", "pot"]
    assert {answer["trigger"] for answer in converted["answers"]} == {"auto"}
    assert (converted["right"], converted["total"]) == ({"cot": 0, "pot": 1}, {"cot": 1, "pot": 3})


def test_a_triggered_answer_by_the_other_path_was_asked_for_that_one(importer):
    converted = importer.convert_meta("2+2?", entry(), "trigger", "f")
    assert [answer["trigger"] for answer in converted["answers"]] == ["cot", "pot", "cot"]


def test_missing_counts_are_counted(importer):
    counts = ("cot_nc", "cot_nt", "pot_nc", "pot_nt")
    converted = importer.convert_meta("q", {k: v for k, v in entry().items() if k not in counts}, "auto", "f")
    assert (converted["right"], converted["total"]) == ({"cot": 0, "pot": 1}, {"cot": 1, "pot": 2})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": None}, "f: lacks task; it has req, task, correct, resps"),
        ({"resps": []}, r"f: resps should be a mapping, found \[\]"),
        ({"resps": {"tot": []}}, "f: resps should have cot and pot, found 'tot'"),
        ({"resps": {"cot": [{"text": "a"}]}}, "f, response 0 of cot: lacks match; it has text"),
        ({"resps": {"cot": [{"text": 1, "match": True}]}}, "f, response 0 of cot: text should be text, found 1"),
        ({"pot_nc": 4}, "f: pot_nc 4 and pot_nt 3 should be the numbers of right and of all answers"),
    ],
)
def test_a_fault_of_a_meta_entry_is_named(importer, changes, message):
    with pytest.raises(BadInput, match=message):
        importer.convert_meta("2+2?", entry(**changes), "auto", "f")


# ---------------------------------------------------------------- offline data


def test_a_row_keeps_its_id_kind_and_verdict(importer):
    row = importer.convert_row(offline(), "f")

    assert (row["uid"], row["kind"], row["path"], row["trigger"]) == (
        "7.pot.trigger.0",
        "pot.trigger.trigger",
        "pot",
        "pot",
    )
    assert (row["reward"], row["reference"], row["level"]) == (1.0, "4", "gsm8k")
    assert importer.convert_row(offline(neg=True, type="cot.auto.better"), "f")["reward"] == 0.0
    assert importer.convert_row(offline(type="cot.auto.better"), "f")["trigger"] == "auto"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output": None}, "f: lacks output; it has qid"),
        ({"neg": "no"}, "f: neg should be true or false or a number, found 'no'"),
        ({"type": "better"}, "f: type should begin with a path and a version, as cot.auto, found 'better'"),
    ],
)
def test_a_fault_of_a_row_is_named(importer, changes, message):
    with pytest.raises(BadInput, match=message):
        importer.convert_row(offline(**changes), "f")


# ---------------------------------------------------------------- there and back


def export(tmp_path, monkeypatch, kind: str, value):
    """Return what a run's file of this kind is in the original's format."""
    write_pickle(tmp_path / "in.pkl", value)
    options = ["--kind", kind, "--input", str(tmp_path / "in.pkl"), "--output", str(tmp_path / "out.pkl")]
    monkeypatch.setattr(sys, "argv", ["export_autocode", *options])
    export_autocode.main()
    return read_pickle(tmp_path / "out.pkl")


def test_an_exported_meta_file_selects_the_same_rows_when_it_comes_back(importer, tmp_path, monkeypatch):
    selection = tasks.load("math", "Selection", {"switches": ["all"]})
    answers = [
        graded("q", "pot", True, number=1),
        graded("q", "cot", False, number=2),
        graded("q", "pot", False, number=3),
    ]
    meta = selection.construct_meta(answers, False)
    [(question, exported)] = export(tmp_path, monkeypatch, "meta", meta).items()

    assert exported["resps"]["pot"][0]["match"] is True  # create_offline_data.py tests it as a truth value
    converted = importer.convert_meta(question, exported, "auto", "f")
    names = ("question", "reference", "level", "prompt_text", "right", "total")
    assert {name: converted[name] for name in names} == {name: meta["q"][name] for name in names}
    kept = ("answer", "reward", "path", "trigger", "prompt_text")
    before = sorted(tuple(answer[name] for name in kept) for answer in meta["q"]["answers"])
    assert sorted(tuple(answer[name] for name in kept) for answer in converted["answers"]) == before


def test_exported_rows_come_back_as_they_were(importer, tmp_path, monkeypatch):
    selection = tasks.load("math", "Selection", {"switches": ["all"]})
    answers = [graded("q", "pot", True, number=1), graded("q", "cot", False, number=2)]
    rows, _ = selection.select({"auto": selection.construct_meta(answers, False)}, Data().model_dump(), 0, None)
    exported = export(tmp_path, monkeypatch, "data", rows)

    names = ("uid", "question", "reference", "answer", "reward", "kind", "source", "level", "path", "prompt_text")
    for row, record in zip(rows, exported, strict=True):
        assert importer.is_foreign_row(record)
        converted = importer.convert_row(record, "f")
        assert {name: converted[name] for name in names} == {name: row[name] for name in names}
