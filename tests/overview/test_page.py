"""The page of a run: it needs no network, its counts add up, and a browser draws it."""

import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from tests.harness import NOTHING_TO_DO, Copy
from tests.overview.answers import answered
from workflow_scripts.core.files import write_json
from workflow_scripts.core.pickles import write_pickle
from workflow_scripts.overview.page import facts
from workflow_scripts.overview.page.answers import side_by_side
from workflow_scripts.overview.page.charts import metric
from workflow_scripts.overview.page.graph import drawing_of
from workflow_scripts.overview.page.write import write_page
from workflow_scripts.tasks.math.evaluation import Evaluation

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def page_of(copy: Copy, output: Path) -> str:
    """Write the page of a copy's run, and return it."""
    copy.run("workflow_scripts.page", "--run", "runs/arithmetic", "--output", str(output))
    return output.read_text()


def dumped(page: Path, address: str = "") -> str:
    """Return the page as a browser shows it."""
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=60000", "--dump-dom"]
    result = subprocess.run([*command, f"file://{page}{address}"], capture_output=True, text=True, check=True)
    return result.stdout


# ---------------------------------------------------------------- of a finished run


def test_the_page_needs_no_network_and_has_all_sections(finished, tmp_path):
    page = page_of(finished, tmp_path / "page.html")

    without_data = re.sub(r'<script type="application/gzip".*?</script>', "", page, flags=re.S)
    assert not re.search(r"""(?:src|href)=["'](?!#)|@import|url\(""", without_data)
    for section in ("result", "answers", "rewards", "training", "flow", "cost", "config"):
        assert f'<section id="{section}">' in page
    assert "not yet" not in without_data and "no evaluation yet" not in without_data
    assert "The config, without the keys that have their defaults" in page
    assert '<svg class="graph"' in page and ">construct_data<" in page


def test_the_counts_of_each_round_add_up(finished):
    [flow] = facts.flow_of(finished.path(""))
    steps = flow["steps"]

    names = [step["name"] for step in steps]
    counts = {step["name"]: step["count"] for step in steps}
    assert names[:3] == ["questions", "answers", "graded answers"] and names[-1] == "rows trained on"
    assert counts["questions"] == 24
    assert counts["answers"] == 24 * (4 + 2 * 2)
    for before, step in pairwise(steps[1:]):
        assert before["count"] - sum(step["left_out"].values()) == step["count"], step


def test_the_rule_report_makes_the_page(fork):
    output = fork.snakemake("report")

    page = fork.path("report/report.html")
    assert page.exists() and fork.path("report/rounds.csv").exists()
    assert NOTHING_TO_DO in fork.snakemake("-n", "report"), output


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_a_browser_draws_the_charts_and_applies_the_filters(finished, tmp_path):
    page = tmp_path / "page.html"
    page_of(finished, page)

    shown = dumped(page)
    assert 'data-ready="yes"' in shown and 'class="missing"' not in shown
    assert shown.count("<svg") >= 10
    assert "12 of 12 questions" in shown

    filtered = dumped(page, "#level=one_digit")
    assert "4 of 12 questions" in filtered
    worse = re.search(r"(\d+) of 12 questions", dumped(page, "#show=worse"))
    better = re.search(r"(\d+) of 12 questions", dumped(page, "#show=better"))
    assert worse and better and int(worse[1]) + int(better[1]) <= 12
    assert re.search(r"\d+ of 24 questions", dumped(page, "#set=rounds"))


# ---------------------------------------------------------------- its parts


def test_2000_long_answers_stay_below_5_megabytes(tmp_path):
    words = [f"{number:x}" for number in range(5000)]
    for round in range(4):
        answers = []
        for number in range(500):
            start = (number * 37 + round * 101) % 4000
            answers.append(answered(number, round, float(round > 0), " ".join(words[start : start + 700])))
        write_pickle(tmp_path / f"evaluation/r{round}/1_0_matchlog.pkl", answers)
        write_json(tmp_path / f"evaluation/r{round}.json", {"round": round, "accuracy": 0.5, "n": 500, "by_level": {}})

    output = tmp_path / "page.html"
    write_page(tmp_path, Evaluation.metrics, output, most_answers=3000)

    assert "500 of 500" in output.read_text()
    assert output.stat().st_size < 5e6


def test_questions_whose_rewards_change_come_first_and_all_levels_are_there(tmp_path):
    for round in range(2):
        answers = [answered(number, round, 1.0, "yes", level="ab"[number % 2]) for number in range(10)]
        answers[6]["reward"] = float(round)
        write_pickle(tmp_path / f"evaluation/r{round}/1_0_matchlog.pkl", answers)

    questions, total = side_by_side(tmp_path, "evaluation", most=8)

    assert total == 10 and len(questions) == 4
    assert questions[0]["id"] == "q6"
    assert sorted(question["level"] for question in questions) == ["a", "a", "b", "b"]
    assert [len(question["rounds"]) for question in questions] == [2, 2, 2, 2]


def test_stages_stand_below_those_that_they_take_something_from():
    edges = [("b", "d"), ("a", "c"), ("c", "e"), ("d", "e"), ("e", "a")]
    graph = {
        "stages": ["d", "c", "b", "e", "a"],
        "edges": [{"from": start, "to": end, "rounds": int(start == "e")} for start, end in edges],
    }

    drawing = drawing_of(graph)

    places = {name: (x, y) for name, x, y in drawing.names}
    assert places["a"][0] == places["c"][0] < places["b"][0] == places["d"][0]
    assert places["a"][1] == places["b"][1] < places["c"][1] < places["e"][1]
    assert [later for *_, later in drawing.lines] == [False, False, False, False, True]


def test_a_change_has_the_format_of_its_metric(tmp_path):
    against = {"before": {"accuracy": {"difference": 0.1234, "p": 0.2}}}
    for round in range(2):
        values = {"round": round, "accuracy": 0.5, "n": 9, "by_level": {}}
        write_json(tmp_path / f"evaluation/r{round}.json", values | ({"against": against} if round else {}))

    write_page(tmp_path, Evaluation.metrics, tmp_path / "page.html", most_answers=10)

    assert "+12.3% (within noise)" in (tmp_path / "page.html").read_text()


def test_the_legend_is_as_dark_as_the_curves(tmp_path):
    rows = [
        {"round": n, "metric": "accuracy", "level": "all", "value": 0.5, "low": 0.4, "high": 0.6, "n": 9}
        for n in (0, 1)
    ]
    chart = metric("accuracy", "accuracy", ".1%", rows)

    assert all(layer["encoding"]["color"]["legend"]["symbolOpacity"] == 1 for layer in chart["layer"])


def test_intervals_become_bands(tmp_path):
    write_json(
        tmp_path / "evaluation/r0.json",
        {"round": 0, "accuracy": 0.5, "n": 9, "by_level": {}, "intervals": {"accuracy": {"low": 0.4, "high": 0.6}}},
    )

    [row] = facts.metrics_of(tmp_path, ["accuracy"])

    assert (row["low"], row["value"], row["high"]) == (0.4, 0.5, 0.6)
