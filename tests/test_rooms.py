"""The rooms of the code: what they may know of each other."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

from tests.harness import REPOSITORY
from workflow_scripts.core.running import plugins

PACKAGE = REPOSITORY / "workflow_scripts"
# A room may import rooms of its own floor and below.
FLOORS = {
    "core": 0,
    "config": 1,
    "training": 2,
    "engines": 2,
    "rollout": 2,
    "rewards": 2,
    "tasks": 3,
    "workflow": 4,
    "overview": 4,
}
STAGES = 4
TRACKED = subprocess.run(["git", "ls-files", "workflow_scripts/tasks"], cwd=REPOSITORY, capture_output=True, text=True)
# The project's own tasks. One that somebody adds may have any name, such as "words".
TASKS = [name for name in plugins.names("tasks") if TRACKED.returncode or f"/{name}" in TRACKED.stdout]
# Words in which a task's name is an ordinary word, and not the task.
ORDINARY = {
    "code": None,  # too common a word; imports and config sections are checked instead
    "reference": None,  # what an answer or a policy is compared with, everywhere
    "math": r"import math\b|\bmath\.\w+|['\"]math['\"]",  # Python's own module
}


def general_files() -> list[Path]:
    """Return the files of the rooms that know no task by name."""
    python = [path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] != "tasks"]
    shared = [PACKAGE / "tasks/__init__.py", PACKAGE / "tasks/defaults.py"]
    rules = [path for path in REPOSITORY.glob("rules/**/*.smk") if path.parent.name != "tasks"]
    return [*python, *shared, *rules, REPOSITORY / "Snakefile"]


def code_of(path: Path) -> str:
    """Return a file without comments and docstrings."""
    text = path.read_text()
    if path.suffix != ".py":
        return "\n".join(line.split("#")[0] for line in text.splitlines())

    tree = ast.parse(text)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        is_documented = isinstance(body, list) and body and isinstance(body[0], ast.Expr)
        if is_documented and isinstance(body[0].value, ast.Constant) and isinstance(body[0].value.value, str):
            body[0] = ast.Pass()
    return ast.unparse(tree)


def imports_of(path: Path) -> set[str]:
    """Return the modules of this package that a file imports, anywhere in it."""
    return set(re.findall(r"^\s*(?:from|import) (workflow_scripts(?:\.\w+)*)", path.read_text(), re.M))


@pytest.mark.parametrize("path", general_files(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_general_rooms_know_no_task_by_name(path):
    code = code_of(path)

    for task in TASKS:
        assert f"workflow_scripts.tasks.{task}" not in code, f"{path} imports the task {task}"
        assert not re.search(rf"cfg\.{task}\b", code), f"{path} reads the config section of the task {task}"
        assert not re.search(rf"task\b[^\n]*== *['\"]{task}['\"]", code), f"{path} asks whether the task is {task}"
        ordinary = ORDINARY.get(task, r"(?!)")
        if ordinary is not None:
            rest = re.sub(ordinary, "", code)
            assert not re.search(rf"\b{task}\b", rest), f"{path} names the task {task}"


def floor_of(module: str) -> int:
    room = module.split(".")[1] if "." in module else ""
    return FLOORS.get(room, STAGES)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down_only(path):
    room = path.relative_to(PACKAGE).parts[0]
    own = FLOORS.get(room, STAGES)

    for module in imports_of(path):
        if module == "workflow_scripts":  # `from workflow_scripts import tasks`
            names = re.findall(r"^\s*from workflow_scripts import (.+)", path.read_text(), re.M)
            modules = [f"workflow_scripts.{name.strip()}" for line in names for name in line.split(",")]
        else:
            modules = [module]
        for imported in modules:
            assert floor_of(imported) <= own, f"{path} imports {imported}, which is above it"


@pytest.mark.parametrize("task", TASKS)
def test_no_task_imports_another(task):
    others = set(TASKS) - {task}
    folder = PACKAGE / "tasks" / task
    files = folder.rglob("*.py") if folder.is_dir() else [folder.with_suffix(".py")]

    for path in files:
        for other in others:
            assert f"workflow_scripts.tasks.{other}" not in path.read_text(), f"{path} imports the task {other}"


def test_little_python_is_left_in_the_rules():
    lines = 0
    for path in REPOSITORY.glob("rules/**/*.smk"):
        is_rule = False
        for line in path.read_text().splitlines():
            text = line.strip()
            if re.match(r"\s*(rule|use rule|checkpoint)\b.*:$", line):
                indent = len(line) - len(line.lstrip())
                is_rule = True
            elif text and is_rule and len(line) - len(line.lstrip()) <= indent:
                is_rule = False
            if text and not text.startswith("#") and not is_rule and not text.startswith("rule"):
                lines += 1
    assert lines <= 150, f"{lines} lines of Python in .smk files; move them to workflow_scripts/workflow/"


def test_the_common_rules_file_is_short():
    assert len((REPOSITORY / "rules/common.smk").read_text().splitlines()) <= 95
