"""What comes from elsewhere runs no code: models, saved states, packages that nobody pinned."""

import ast
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import REPOSITORY, tiny_config
from workflow_scripts.config.load import load
from workflow_scripts.workflow.commands import shell_prefix

SOURCES = sorted((REPOSITORY / "workflow_scripts").rglob("*.py"))
PINS = sorted(path for path in (REPOSITORY / "envs").glob("*.txt"))


def calls(path: Path) -> Iterator[tuple[str, dict[str, ast.expr], int]]:
    """Yield the name, the named arguments and the line of each call in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            named = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
            yield ast.unparse(node.func), named, node.lineno


def test_no_source_file_reads_pickles_that_may_run_code():
    """Weights and states are read by torch.load with weights_only; pickles by core/pickles.py."""
    readers = {"pickle.load", "pickle.loads", "joblib.load", "dill.load"}
    safe = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}

    for path in SOURCES:
        for name, named, line in calls(path):
            assert name not in readers, f"{path}, line {line}: {name}"
            if name in safe:
                option, right = safe[name]
                value = named.get(option)
                assert isinstance(value, ast.Constant) and value.value is right, f"{path}, line {line}: {name}"


def test_no_call_trusts_the_code_of_a_model():
    for path in SOURCES:
        for name, named, line in calls(path):
            value = named.get("trust_remote_code")
            assert value is None or ast.unparse(value) == "False", f"{path}, line {line}: {name}"


LOAD = """
import sys
from workflow_scripts.core.pretrained import AutoModelForCausalLM, AutoTokenizer
for loader in (AutoModelForCausalLM, AutoTokenizer):
    try:
        loader.from_pretrained(sys.argv[1])
    except Exception as error:
        print("refused:", type(error).__name__, file=sys.stderr)
"""


def test_code_in_a_models_folder_is_not_run(tmp_path):
    """The folder says that its model and its tokenizer are made by its own modules, as models on the hub may.

    transformers asks on the terminal whether it may run them. A job has none, so a careless answer does nothing.
    """
    config = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    tokenizer = {"auto_map": {"AutoTokenizer": ["own.Tokenizer", None]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")

    prefix = shell_prefix(load(tiny_config()), str(REPOSITORY), uses_own_environments=False)
    command = ["bash", "-c", f"{prefix} python -c {shlex.quote(LOAD)} {tmp_path}"]
    ended = subprocess.run(command, input="y\ny\n", capture_output=True, text=True)
    assert ended.stderr.count("refused: ValueError") == 2, ended.stdout + ended.stderr
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("path", PINS, ids=lambda path: path.name)
def test_each_package_of_an_environment_has_one_version(path):
    """A range would install another version tomorrow. Names without a version are pinned in constraints.txt."""
    pinned = set(re.findall(r"^([\w.\-]+)==", (REPOSITORY / "envs/constraints.txt").read_text(), re.M))
    names = {name.lower().replace("_", "-") for name in pinned}

    for line in path.read_text().splitlines():
        requirement = line.split("#")[0].strip()
        if not requirement or requirement.startswith("-"):
            continue
        name = re.match(r"[\w.\-]+", requirement)
        assert name, line
        is_pinned = "==" in requirement or "@" in requirement
        assert is_pinned or name[0].lower().replace("_", "-") in names, f"{path.name}: {line}"
