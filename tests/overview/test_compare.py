"""The page that compares several runs."""

import sys

import pytest

from tests.overview.answers import answered
from tests.overview.test_page import BROWSER, dumped
from workflow_scripts import page
from workflow_scripts.core.files import write_json
from workflow_scripts.core.pickles import write_pickle
from workflow_scripts.core.running.cli import run
from workflow_scripts.overview.page.compare import answers_of, differences_of, table_of, write_comparison
from workflow_scripts.overview.page.facts import metrics_of
from workflow_scripts.tasks.math.evaluation import Evaluation


def make_run(folder, rounds: int, accuracy: float, questions: range, **config):
    """Write what a page reads of a run: evaluations with their answers, its config, and the seconds of a job."""
    for round in range(rounds):
        answers = [
            answered(number, round, float(round > 0), f"answer {round} of {folder.name}") for number in questions
        ]
        write_pickle(folder / f"evaluation/r{round}/1_0_matchlog.pkl", answers)
        intervals = {"accuracy": {"low": accuracy - 0.1, "high": accuracy + 0.1}}
        values = {"round": round, "accuracy": accuracy, "n": len(questions), "by_level": {}, "intervals": intervals}
        write_json(folder / f"evaluation/r{round}.json", values)
    write_json(folder / "run.json", {"name": folder.name, "task": "math"})
    write_json(folder / "config.json", {"name": folder.name} | config)
    (folder / "benchmarks").mkdir()
    (folder / "benchmarks/train.tsv").write_text("s\n60\n")
    return folder


@pytest.fixture
def runs(tmp_path):
    one = make_run(tmp_path / "one", 2, 0.5, range(10), train={"lr": 1e-4, "epochs": 1})
    other = make_run(tmp_path / "other", 3, 0.75, range(2, 12), train={"lr": 1e-5, "epochs": 1}, seed=3)
    return {"one": one, "other": other}


def test_each_run_has_a_row_with_its_last_round(runs):
    evaluated = {name: metrics_of(folder, ["accuracy"]) for name, folder in runs.items()}
    table = table_of(evaluated, {"accuracy": ("accuracy", ".1%")})

    assert [(line["run"], line["round"], line["cells"]) for line in table["lines"]] == [
        ("one", 1, ["50.0% (40.0%–60.0%)"]),
        ("other", 2, ["75.0% (65.0%–85.0%)"]),
    ]
    assert table["is_same_size"] and table["has_intervals"]


def test_answers_to_the_questions_that_all_runs_have_stand_side_by_side(runs):
    part = answers_of(runs, most=1000)["evaluation"]

    assert part["all"] == 8  # questions 2 to 9
    assert [key for key, _ in part["columns"]] == ["one 0", "one 1", "other 0", "other 1", "other 2"]
    for question in part["questions"]:
        assert question["rounds"].keys() == {key for key, _ in part["columns"]}
        assert question["rounds"]["other 2"][0]["a"] == "answer 2 of other"


def test_with_many_rounds_each_run_has_its_last_one(tmp_path):
    runs = {name: make_run(tmp_path / name, 4, 0.5, range(3)) for name in "ab"}
    part = answers_of(runs, most=1000)["evaluation"]
    assert part["columns"] == [("a 3", "a, round 3"), ("b 3", "b, round 3")]


def test_config_keys_that_differ_are_listed():
    settings = {
        "a": {"name": "a", "train": {"lr": 1e-4, "epochs": 1}, "shards": 2},
        "b": {"name": "b", "train": {"lr": 1e-5, "epochs": 1}, "shards": 2, "seed": 3},
    }
    assert differences_of(settings) == {"train.lr": ["0.0001", "1e-05"], "seed": ["–", "3"]}


def test_the_command_compares_runs_and_refuses_what_cannot_be_compared(runs, tmp_path, monkeypatch, capsys):
    def call(*options):
        monkeypatch.setattr(sys, "argv", ["page", *map(str, options)])
        with pytest.raises(SystemExit) as end:
            run(page.main)
        return end.value.code, "".join(capsys.readouterr())

    code, _ = call("--run", *runs.values(), "--output", tmp_path / "c.html")
    text = (tmp_path / "c.html").read_text()
    assert code == 0 and "<td><code>1e-05</code></td>" in text and "train.lr" in text

    assert "the same run is named twice" in call("--run", runs["one"], runs["one"])[1]
    write_json(runs["other"] / "run.json", {"name": "other", "task": "code"})
    assert "these runs are of different tasks" in call("--run", *runs.values())[1]


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_a_browser_draws_it(runs, tmp_path):
    write_comparison(list(runs.values()), Evaluation.metrics, tmp_path / "c.html", most_answers=1000)

    shown = dumped(tmp_path / "c.html")
    assert 'data-ready="yes"' in shown and 'class="missing"' not in shown
    assert "8 of 8 questions" in shown and "other, round 2" in shown
    assert shown.count("<svg") >= 2
    assert "8 of 8 questions" in (dumped(tmp_path / "c.html", "#show=better&before=one%200&now=other%202"))
