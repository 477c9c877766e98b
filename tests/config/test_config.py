import re

import pytest
import yaml
from conftest import REPOSITORY, tiny_config

from workflow_scripts.core.config import Config, ConfigError, load


def faults(**changes) -> str:
    with pytest.raises(ConfigError) as error:
        load(tiny_config(**changes))
    return str(error.value)


def test_every_fault_is_reported_at_once_with_its_path():
    text = faults(name="two words", task="nothing", round=3, train={"lr": -1, "epochs": "many"}, prompts={"train": {}})
    for expected in (
        "config: name: ",
        "config: task: there is no such task; tasks are: arithmetic, code, math, ",
        "config: round: there is no such key; did you mean 'rounds'?",
        "config: train.lr: ",
        "config: train.epochs: ",
        "config: prompts.train: give either `file` or `count`",
        "config: prompts.eval: this key is needed",
    ):
        assert expected in text, text


@pytest.mark.parametrize(
    ("section", "hint"),
    [
        ({"train": {"batchsize": 1}}, "train.batchsize: there is no such key; did you mean 'batch_size'?"),
        ({"results": {1: {"aut": ["x.pkl"]}}}, "results.1.aut: there is no such key; did you mean 'auto'?"),
        ({"results": {1: {}}}, "results.1: name at least one file"),
        ({"generate": {"auto": {"temperature": 0.5}}}, "need one temperature"),
        ({"cold_start": None}, "a model from `scratch` knows nothing"),
        ({"generate": {"engine": "openai"}}, "generate.eval.engine: evaluation is of the checkpoint"),
        ({"generate": {"auto": {"engine": "openai"}}}, "generate.openai: the engine openai needs `base_url`"),
        ({"generate": {"openai": {"base_url": "x", "model": "y", "budget": 1}}}, "a budget needs `prices"),
        ({"python": {"vlm": "x"}}, "python.vlm"),
        ({"selection": {"num_examples": 4}}, "task arithmetic has none"),
    ],
)
def test_hints(section, hint):
    assert hint in faults(**section)


def test_numbers_that_yaml_reads_as_text_are_numbers():
    assert yaml.safe_load("lr: 1e-6") == {"lr": "1e-6"}
    assert load(tiny_config(train={"lr": "1e-6"})).train.lr == 1e-6


@pytest.mark.parametrize("value", [True, False, "on", "off"])
def test_on_and_off_survive_yaml(value):
    assert load(tiny_config(sandbox=value)).sandbox == {True: "on", False: "off"}.get(value, value)


@pytest.mark.parametrize("path", sorted(REPOSITORY.glob("recipes/*.yaml")), ids=lambda p: p.stem)
def test_recipes_are_valid_and_named_after_their_file(path):
    assert load(yaml.safe_load(path.read_text())).name == path.stem


def test_each_key_of_the_default_config_has_a_comment():
    for number, line in enumerate((REPOSITORY / "config.yaml").read_text().splitlines(), 1):
        assert not re.match(r"\s*\w+:", line) or "#" in line, f"config.yaml, line {number} has no comment: {line}"


def test_the_default_config_says_nothing_that_the_schema_does_not_know():
    assert isinstance(load(yaml.safe_load((REPOSITORY / "config.yaml").read_text())), Config)


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("train", {"objective": "topr", "kl": 0.5}, "kl: objective topr has no such term"),
        ("train", {"objective": "sft", "min_ess": 0.5}, "min_ess: objective sft takes no ratios"),
        ("train", {"schedule_over": "rounds"}, "schedule_over: rounds needs updates_per_round"),
        ("train", {"objective": "dpo"}, "dpo and data.source.format preference belong together"),
        ("train", {"dtype": "bfloat16"}, "both need one arithmetic"),
        ("train", {"adam_beta2": 1}, "train.adam_beta2"),
        ("cold_start", {"train": {"objective": "clip"}}, "cold_start.train.objective"),
        (
            "cold_start",
            {"train": {"updates_per_round": 2, "schedule_over": "rounds"}},
            "cold_start.train.schedule_over",
        ),
    ],
)
def test_settings_that_would_do_nothing_or_harm_are_refused(section, change, message):
    assert re.search(message, faults(**{section: tiny_config()[section] | change}))
