"""The scorecard of objectives: what it trains on, and what it says."""

import pytest

from benchmarks.objectives import OWN, half_width, pairs_of, settings_of_objective, summary
from workflow_scripts.config.sections import Train
from workflow_scripts.core.running import plugins


def row(uid: str, prompt: str, advantage: float) -> dict:
    return {"uid": uid, "prompt_id": prompt, "advantage": advantage}


def test_pairs_are_of_one_question_and_neighbours():
    rows = [row("a", "q", 0.5), row("b", "q", -0.5), row("c", "q", -0.5), row("d", "p", 0.25), row("e", "p", -0.75)]
    pairs = pairs_of(rows)

    assert [(pair["uid"], pair["pair"], pair["advantage"]) for pair in pairs] == [
        ("p.0.chosen", "p.0", 1.0),
        ("p.0.rejected", "p.0", -1.0),
        ("q.0.chosen", "q.0", 1.0),
        ("q.0.rejected", "q.0", -1.0),
    ]


@pytest.mark.parametrize("name", plugins.names("training/objectives"))
def test_the_settings_of_all_objectives_are_valid(name):
    assert Train.model_validate(settings_of_objective(name, None)).objective == name
    assert set(OWN) <= set(plugins.names("training/objectives"))


def test_the_summary_has_means_and_students_intervals():
    runs = [{"objective": "clip", "gain": gain, "kl": 0.1, "ess": None, "seconds": 1.0} for gain in (1.0, 2.0, 3.0)]
    means = summary(runs)["clip"]

    assert means["seeds"] == 3
    assert means["gain"] == 2.0
    assert means["gain_plus_minus"] == pytest.approx(4.303 / 3**0.5, rel=1e-3)
    assert "ess" not in means
    assert half_width([1.0]) is None
