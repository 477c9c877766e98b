"""The stage evaluate on graded answers of three rounds, and how the report shows what it found."""

import sys

import numpy as np
import pytest

from workflow_scripts import evaluate, report
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json, write_json
from workflow_scripts.core.pickles import write_pickle

QUESTIONS = 120


def graded(rng, accuracy, samples=1, sets=None):
    """Return graded answers of the task math to easy and hard questions."""
    answers = []

    for number in range(QUESTIONS):
        for sample in range(samples):
            is_right = bool(rng.random() < accuracy)
            answers.append(
                {
                    "uid": f"q{number}.auto.{sample}",
                    "id": f"q{number}",
                    "level": "easy" if number % 3 else "hard",
                    "answer": "…",
                    "reward": float(is_right),
                    "path": "cot",
                    "prediction": "7" if is_right else str(rng.integers(10, 99)),
                }
                | ({"set": sets[number % len(sets)]} if sets else {})
            )

    return answers


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that evaluates rounds and returns their metrics."""

    def evaluated(*rounds):
        files = []
        for number, answers in enumerate(rounds):
            files.append(tmp_path / f"r{number}_matchlog.pkl")
            write_pickle(files[-1], answers)

        metrics = []
        for number, file in enumerate(files):
            output = tmp_path / f"evaluation/r{number}.json"
            options = ["--task", "math", "--results", file, "--round", number, "--output", output]
            options += ["--before", files[number - 1], "--round0", files[0]] if number else []
            monkeypatch.setattr(sys, "argv", ["evaluate", *map(str, options)])
            evaluate.main()
            metrics.append(read_json(output))

        write_json(tmp_path / "run.json", {"task": "math"})
        return metrics

    return evaluated


def show(monkeypatch, capsys, folder, *options):
    monkeypatch.setattr(sys, "argv", ["report", "--run", str(folder), *options])
    report.main()
    return capsys.readouterr().out


def test_rounds_are_compared_on_the_same_questions(run, tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    first = graded(rng, 0.3)
    second = graded(rng, 0.8)
    third = [answer | {"reward": 1.0} if number < 2 else answer for number, answer in enumerate(second)]
    metrics = run(first, second, third)

    assert "against" not in metrics[0]
    assert metrics[1]["against"]["before"] == metrics[1]["against"]["round0"]
    assert metrics[1]["against"]["before"]["accuracy"]["p"] < 1e-6
    since = metrics[2]["against"]["before"]["accuracy"]
    assert since["p"] >= 0.05 and since["lost"] == 0
    assert metrics[2]["against"]["round0"]["accuracy"]["test"] == "mcnemar"
    easy = metrics[2]["by_level"]["easy"]
    assert easy["against"]["before"]["accuracy"]["questions"] == easy["n"] == 80
    assert easy["intervals"]["accuracy"]["method"] == "wilson"

    capsys.readouterr()
    rows = [line.split() for line in show(monkeypatch, capsys, tmp_path).splitlines()]
    assert any("95%" in row for row in rows)
    [last] = [row for row in rows if row[:1] == ["2"]]
    assert last.count("≈") == 1  # against the round before, and not against round 0


def test_several_samples_have_pass_and_majority(run, tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(1)
    answers = graded(rng, 0.4, samples=4, sets=("a", "b"))
    metrics, again = run(answers, graded(rng, 0.5, samples=4, sets=("a", "b")))

    assert metrics["avg@4"] == pytest.approx(metrics["accuracy"])
    assert metrics["accuracy"] < metrics["pass@2"] < metrics["pass@4"]
    assert metrics["maj@4"] > metrics["accuracy"]  # wrong answers rarely agree
    any_right = {answer["id"] for answer in answers if answer["reward"]}
    assert metrics["pass@4"] == pytest.approx(len(any_right) / QUESTIONS)
    assert metrics["intervals"]["accuracy"]["method"] == "bootstrap"
    assert metrics["intervals"]["maj@4"]["low"] < metrics["maj@4"] < metrics["intervals"]["maj@4"]["high"]
    assert again["against"]["before"]["accuracy"]["test"] == "bootstrap"
    assert again["by_set"]["a"]["intervals"].keys() == metrics["intervals"].keys()
    assert again["by_set"]["a"]["by_level"]["easy"]["pass@4"] >= again["by_set"]["a"]["by_level"]["easy"]["avg@4"]

    capsys.readouterr()
    table = show(monkeypatch, capsys, tmp_path)
    assert "pass@4" in table and "maj@4" in table and "pass@2" not in table

    show(monkeypatch, capsys, tmp_path, "--csv", str(tmp_path / "x.csv"), "--plot", str(tmp_path / "x.svg"))
    columns = (tmp_path / "x.csv").read_text().splitlines()[0].split(",")
    assert {"low accuracy", "high accuracy a", "p_before accuracy", "change_round0 maj@4 easy"} <= set(columns)


def test_each_set_has_the_metrics_of_its_own_number_of_samples(run, tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(2)

    def one_round(accuracy):
        greedy = [answer | {"set": "facts", "level": "facts"} for answer in graded(rng, accuracy)]
        sampled = [
            answer | {"set": "sums", "level": "sums", "id": f"s{answer['id']}", "uid": f"s{answer['uid']}"}
            for answer in graded(rng, accuracy, samples=4)
        ]
        return [*greedy, *sampled]

    _, metrics = run(one_round(0.3), one_round(0.6))
    assert metrics["n"] == 5 * QUESTIONS
    for parts in (metrics["by_set"], metrics["by_level"]):
        assert not [name for name in parts["facts"] if "@" in name]
        assert parts["sums"]["avg@4"] < parts["sums"]["pass@4"]
        assert parts["facts"]["intervals"]["accuracy"]["method"] == "wilson"
        assert parts["sums"]["intervals"]["accuracy"]["method"] == "bootstrap"
        assert parts["facts"]["against"]["before"]["accuracy"]["test"] == "mcnemar"
        assert parts["sums"]["against"]["before"]["avg@4"]["test"] == "bootstrap"

    capsys.readouterr()
    table = show(monkeypatch, capsys, tmp_path)
    assert "pass@4 sums" in table and "pass@4 facts" not in table

    show(monkeypatch, capsys, tmp_path, "--csv", str(tmp_path / "x.csv"), "--plot", str(tmp_path / "x.svg"))
    columns = (tmp_path / "x.csv").read_text().splitlines()[0].split(",")
    assert {"accuracy facts", "pass@4 sums", "p_before pass@4 sums"} <= set(columns)
    assert "pass@4 facts" not in columns


def test_evaluations_without_intervals_are_still_shown(run, tmp_path, monkeypatch, capsys):
    for number in range(2):
        level = {"accuracy": 0.5, "code_share": 0.0, "n": 2}
        write_json(tmp_path / f"evaluation/r{number}.json", {"round": number, **level, "by_level": {"easy": level}})
    write_json(tmp_path / "run.json", {"task": "math"})

    assert "50.0% / 0%" in show(monkeypatch, capsys, tmp_path)
    show(monkeypatch, capsys, tmp_path, "--plot", str(tmp_path / "x.svg"))
    with pytest.raises(BadInput, match="has no r"):
        show(monkeypatch, capsys, tmp_path.parent / "nowhere", "--task", "math")
