"""The updates that a config makes on one policy's answers, computed without running it."""

import sys

import pytest
import yaml

from tests.harness import REPOSITORY
from workflow_scripts import updates
from workflow_scripts.config.load import load
from workflow_scripts.config.sections import Train
from workflow_scripts.training.bins import plan


def recipe(name: str):
    text = (REPOSITORY / f"recipes/{name}.yaml").read_text()
    return load(yaml.safe_load(text)), text


def shown(monkeypatch, capsys, *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", ["updates.py", *arguments])
    updates.main()
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "rows"),
    [
        ({"batch_size": 32}, 32),
        ({"batch_size": 32}, 33),
        ({"batch_size": 32, "epochs": 3}, 70),
        ({"updates_per_round": 5, "epochs": 2}, 70),
    ],
)
def test_updates_are_those_that_training_plans(settings, rows):
    train = Train(**settings)
    bins, steps = plan([10] * rows, train.batch_size, train.epochs, 10, 0, updates=train.updates_per_round or 0)

    assert train.updates(rows) == len(bins) // steps


def test_reference_makes_one_update_of_32_answers_per_policy_as_bleuberi_does():
    cfg, text = recipe("reference")
    prompts = updates.train_prompts(cfg)
    rows = updates.most_units(cfg, prompts)

    assert (prompts, rows, cfg.train.batch_size) == (5000, 32, 32)
    assert cfg.train.updates(rows) == updates.original_updates(text) == 1
    assert cfg.rounds * cfg.prompts_per_round == prompts


def test_recommend_makes_at_most_16_updates_per_policy_as_tart_does():
    cfg, text = recipe("recommend")
    rows = updates.most_units(cfg, updates.train_prompts(cfg))

    assert rows == 16 * 15  # in a group of 8 with variance, 7 rollouts at most are right and have a rewritten list
    assert cfg.train.updates(rows) <= updates.original_updates(text) == 16


def test_math_and_code_pass_over_all_rows_of_a_round_in_updates_of_128():
    for name, passes in (("math", 1), ("code", 3)):
        cfg, _ = recipe(name)
        assert cfg.prompts_per_round is None
        assert cfg.train.updates(1280) == passes * 10

    cfg, _ = recipe("math")
    assert updates.most_units(cfg, 119_274) == 119_274 * 10  # 8 answers, and one triggered row per path


def test_tabular_makes_12_updates_on_a_rounds_pairs():
    cfg, text = recipe("tabular")
    assert cfg.train.updates(updates.most_units(cfg, None)) == updates.original_updates(text) == 12


def test_the_command_compares_with_the_original(monkeypatch, capsys):
    output = shown(monkeypatch, capsys, "--configfile", str(REPOSITORY / "recipes/reference.yaml"))
    assert "prompts per round   4 of 5,000; 1,250 rounds answer all of them" in output
    assert "updates per policy  at most 1; the original: 1, ratio 1" in output

    output = shown(monkeypatch, capsys, "--configfile", str(REPOSITORY / "recipes/math.yaml"), "--prompts", "119274")
    assert "updates per policy  at most 9,319" in output
    assert "ratio" not in output

    output = shown(monkeypatch, capsys, "--configfile", str(REPOSITORY / "recipes/code.yaml"))
    assert "3 × rows / 128; give --rows to compute it" in output


def test_finished_rounds_are_listed(finished, monkeypatch, capsys):
    monkeypatch.chdir(finished.folder)
    output = shown(monkeypatch, capsys)

    assert "prompts per round   all: 24" in output
    assert "round 1 was made with" in output
