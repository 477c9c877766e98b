"""Files of the original system: read in its formats, and written in them."""

import subprocess
import sys

import pytest

from tests.harness import REPOSITORY
from tests.tasks.math.answers import graded
from workflow_scripts import tasks
from workflow_scripts.config.sections import Data
from workflow_scripts.core.pickles import read_pickle, write_pickle
from workflow_scripts.tasks.math import export_autocode
from workflow_scripts.tasks.math.conversation import TRIGGERS
from workflow_scripts.tasks.math.prompts import as_text

DIRECT = "There are 3 + 4 = 7 eggs.\nThe answer is $\\boxed{7}$."
PROGRAM = "```python\nprint(3 * 50)\n```\n```output\n150\n```\nHe gathered $\\boxed{50}$ apples."
SILENT = "Let's write a program.\n```python\ndef f():\n    return 6 * 7\nprint(f())\n```"


def record(question: str, solution: str, correct: str, stored: bool) -> dict:
    """Return a graded result as the original system writes it."""
    return {
        "question": question,
        "solution": solution,
        "correct": correct,
        "req": f"User:{question}\n\nAssistant:",
        "match": [{"pred": "", "res": stored}],
        "task": "gsm8k",
    }


def grade(folder) -> str:
    """Grade in.pkl from the command line and return the line of figures."""
    command = "-m workflow_scripts.grade --task math --results in.pkl --output out.pkl".split()
    environment = {"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def export(tmp_path, monkeypatch, kind: str, value):
    """Export what a run's file of this kind holds, and return it in the original's format."""
    write_pickle(tmp_path / "in.pkl", value)
    options = ["--kind", kind, "--input", str(tmp_path / "in.pkl"), "--output", str(tmp_path / "out.pkl")]
    monkeypatch.setattr(sys, "argv", ["export_autocode", *options])
    export_autocode.main()
    return read_pickle(tmp_path / "out.pkl")


# ---------------------------------------------------------------- reading


def test_results_in_the_originals_format_are_graded_from_the_command_line(tmp_path):
    results = [
        record("a", DIRECT, "7", True),
        record("b", PROGRAM, "150", True),
        record("c", SILENT, "42", True),
        record("d", DIRECT, "9", True),
    ]
    write_pickle(tmp_path / "in.pkl", results)

    assert grade(tmp_path) == "accuracy=0.5000 accuracy_any=0.7500 code_share=0.5000 n=4 agreement=0.7500 undecided=0"


def test_a_trigger_in_the_question_becomes_a_field():
    importer = tasks.load("math", "Importer")
    converted = importer.convert(record("a" + TRIGGERS["pot"], SILENT, "42", True))

    assert (converted["question"], converted["trigger"]) == ("a", "pot")
    assert importer.convert(record("a", DIRECT, "7", True))["trigger"] == "auto"


@pytest.mark.parametrize(
    ("reference", "text"),
    [("7", "7"), (7, "7"), (["0.5", 0.5], "0.5"), ([], None), (float("nan"), None), (None, None)],
)
def test_the_originals_references_become_text(reference, text):
    assert as_text(reference) == text


# ---------------------------------------------------------------- writing


def test_exported_results_have_the_originals_fields_and_verdicts(tmp_path, monkeypatch):
    answers = [graded("q", "pot", True, "pot"), graded("q", "cot", False, number=1)]
    first, second = export(tmp_path, monkeypatch, "results", answers)

    assert set(first) == {"question", "solution", "correct", "req", "task", "key", "match"}
    assert first["question"] == "q" + TRIGGERS["pot"]
    assert (first["key"], first["match"]) == ("pot", [{"pred": "1", "res": True}])
    assert (second["question"], second["match"][0]["res"]) == ("q", False)


def test_exported_results_come_back_as_they_were(tmp_path, monkeypatch):
    answer = graded("q", "pot", True, "pot")
    [exported] = export(tmp_path, monkeypatch, "results", [answer])
    importer = tasks.load("math", "Importer")

    assert importer.is_foreign_format(exported)
    back = importer.convert(exported)
    assert {name: back[name] for name in importer.needed} == {name: answer[name] for name in importer.needed}
    assert (back["trigger"], back["stored_verdict"]) == ("pot", True)


def test_an_exported_meta_file_has_the_originals_fields(tmp_path, monkeypatch):
    answers = [graded("q", "pot", True, "pot"), graded("q", "pot", True, "cot", 1), graded("q", "cot", False, number=2)]
    meta = tasks.load("math", "Selection").construct_meta(answers, False)
    entry = export(tmp_path, monkeypatch, "meta", meta)["q"]

    assert set(entry) == {"req", "task", "correct", "resps", "cot_nc", "cot_nt", "pot_nc", "pot_nt"}
    assert (entry["cot_nc"], entry["cot_nt"], entry["pot_nc"], entry["pot_nt"]) == (0, 1, 2, 2)
    assert set(entry["resps"]["cot"][0]) == {"match", "text", "logp", "req", "native"}
    assert [response["native"] for response in entry["resps"]["pot"]] == [True, False]


def test_exported_rows_have_the_originals_fields(tmp_path, monkeypatch):
    selection = tasks.load("math", "Selection", {"switches": ["keeptrigger"]})
    auto = [graded("q", "cot", True), graded("q", "cot", False, number=1)]
    triggered = [graded("q", "pot", i < 1, "pot", i) for i in range(4)]
    metas = {"auto": selection.construct_meta(auto, False), "trigger": selection.construct_meta(triggered, False)}
    rows, _ = selection.select(metas, Data().model_dump(), 0, None)

    exported = {row["qid"]: row for row in export(tmp_path, monkeypatch, "data", rows)}
    right, wrong = exported["q.auto.0"], exported["q.auto.1"]
    assert (right["instruction"], right["output"], right["gold"]) == ("q", "cot True 0", "1")
    assert (right["type"], right["trigger_value"], right["neg"]) == ("cot.auto.better", "", False)
    assert wrong["neg"] is True
    [row] = [row for row in exported.values() if row["type"] == "pot.trigger.trigger"]
    assert row["trigger_value"] == TRIGGERS["pot"]
