"""The files of envs/ agree with one another, and stand alone."""

import importlib.util
import re

import pytest
import yaml

from tests.harness import REPOSITORY
from workflow_scripts.config.faults import environments

ENVS = REPOSITORY / "envs"


def write_yaml():
    spec = importlib.util.spec_from_file_location("write_yaml", ENVS / "write_yaml.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return write_yaml().texts()


def test_conda_environments_are_those_of_the_requirement_files(texts):
    for name, text in texts.items():
        assert (ENVS / name).read_text() == text, f"run .venv/bin/python envs/write_yaml.py: {name} is out of date"


def test_each_environment_that_a_part_declares_exists(texts):
    for name in ("roundhouse", *environments()):
        assert f"{name}.yaml" in texts


def test_conda_environments_stand_alone_and_pin_everything(texts):
    """Snakemake copies the file, so no other file can be named in it."""
    for name, text in texts.items():
        [pins] = [item["pip"] for item in yaml.safe_load(text)["dependencies"] if isinstance(item, dict)]
        assert all(re.fullmatch(r"[\w.-]+(\[\w+\])?==[\w.]+", pin) for pin in pins), name
        assert len(pins) == len(set(pins)), name
