"""A stage's code digest covers the definitions that it reaches, and nothing else."""

import textwrap

import pytest

from workflow_scripts import engines, tasks
from workflow_scripts.core.running import code, plugins
from workflow_scripts.training import objectives


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Return a function that writes files of a small package and returns the digest of what a root reaches."""
    caches = (code.code_table, code._references, code._read, code._file_of, code._definition_digest)
    monkeypatch.setattr(code, "ROOT", tmp_path)
    monkeypatch.setattr(code, "PACKAGE", tmp_path / "package")
    monkeypatch.setattr(code, "EXEMPT", (tmp_path / "package/running",))

    def identity(*roots: str, **files: str) -> str:
        for name, text in files.items():
            path = tmp_path / "package" / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        for cache in caches:
            cache.cache_clear()
        return code.code_identity(*(roots or ("package.stage:main",)))

    yield identity
    for cache in caches:
        cache.cache_clear()


STAGE = """
    from package import tools
    from package.helper import used as renamed

    SIZE = 3

    def main(argument: int = 1) -> None:
        '''Do it.'''
        say(f"doing {argument}")
        if argument < 0:
            raise BadInput("negative")
        return renamed(SIZE) + tools.twice(argument)
"""
HELPER = """
    def used(x):
        return inner(x)

    def inner(x):
        return x + 1

    def unused(x):
        return x
"""
TOOLS = """
    FACTOR = 2

    def twice(x):
        return FACTOR * x

    def thrice(x):
        return 3 * x
"""
FILES = {"stage": STAGE, "helper": HELPER, "tools": TOOLS}


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("stage", "SIZE = 3", "SIZE = 4"),
        ("stage", "argument < 0", "argument <= 0"),
        ("helper", "return x + 1", "return x + 2"),  # reached through another function
        ("tools", "FACTOR = 2", "FACTOR = 5"),  # a constant, through an attribute of a module
        ("tools", "FACTOR * x", "x * FACTOR"),
        ("stage", "import used as renamed", "import unused as renamed"),
    ],
)
def test_a_changed_definition_that_is_reached_changes_the_digest(package, file, old, new):
    before = package(**FILES)
    assert old in FILES[file]
    assert package(**FILES | {file: FILES[file].replace(old, new)}) != before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("helper", "return x\n", "return x * 9\n"),  # of `unused`
        ("tools", "3 * x", "4 * x"),
        ("helper", "def used(x):", "def used(x):  # a comment"),
        ("stage", "Do it.", "Do something."),
        ("stage", "argument: int = 1) -> None", "argument=1)"),
        ("stage", "doing {argument}", "working on {argument}"),
        ("stage", 'BadInput("negative")', 'BadInput("should not be negative")'),
    ],
)
def test_what_cannot_change_a_result_leaves_the_digest_alone(package, file, old, new):
    before = package(**FILES)
    assert old in FILES[file]
    assert package(**FILES | {file: FILES[file].replace(old, new)}) == before


def test_added_definitions_and_files_leave_the_digest_alone(package):
    before = package(**FILES)
    more = FILES | {"helper": HELPER + "\n    def another(x):\n        return used(x)\n", "other": "X = 1"}
    assert package(**more) == before


def test_what_a_module_does_when_it_is_imported_counts(package):
    before = package(**FILES)
    registers = TOOLS + "\n    register(twice)\n"
    assert package(**FILES | {"tools": registers}) != before


def test_imports_within_functions_and_methods_are_followed(package):
    stage = """
        class Runner:
            def run(self):
                from package.helper import used
                return used(1)

        def main():
            return Runner().run()
    """
    before = package(stage=stage, helper=HELPER)
    assert package(stage=stage, helper=HELPER.replace("x + 1", "x + 2")) != before


def test_a_module_that_is_passed_on_counts_as_a_whole(package):
    stage = """
        from package import tools

        def main():
            return call(tools)
    """
    before = package(stage=stage, tools=TOOLS)
    assert package(stage=stage, tools=TOOLS.replace("3 * x", "4 * x")) != before


def test_a_module_that_starts_itself_counts_as_a_whole(package):
    stage = """
        def main():
            return start(__file__)

        def child():
            return 1
    """
    before = package(stage=stage)
    assert package(stage=stage.replace("return 1", "return 2")) != before


def test_the_packages_that_a_module_declares_do_not_count(package):
    """Not even in a module that counts as a whole: a missing package leads to no result at all."""
    before = package("package.stage", stage="SIZE = 1\n")
    assert package("package.stage", stage="PACKAGES = ('numpy',)\nSIZE = 1\n") == before
    assert package("package.stage", stage="PACKAGES = ('numpy',)\nSIZE = 2\n") != before


def test_exempt_rooms_never_count(package):
    stage = """
        from package.running.bar import show

        def main():
            return show(1)
    """
    before = package(stage=stage, running__bar="def show(x):\n    return x\n")
    assert package(stage=stage, running__bar="def show(x):\n    return 2 * x\n") == before


def test_a_root_that_is_not_there_is_an_error(package):
    with pytest.raises(ModuleNotFoundError, match=r"package\.stages"):
        package("package.stages:main", **FILES)


# ---------------------------------------------------------------- the stages of this project

PARTS = ("Prompts", "ColdStart", "Conversation", "Grading", "Selection", "Evaluation")


def files_of(*roots: str) -> set[str]:
    return set(code.code_table(*roots))


def stage_files(stage: str, task: str, *parts: str) -> set[str]:
    return files_of(f"workflow_scripts.{stage}:main", *(tasks.root(task, part) for part in parts))


@pytest.mark.parametrize("task", plugins.names("tasks"))
def test_generation_depends_on_no_grading_selection_or_evaluation(task):
    for engine in plugins.names("engines"):
        reached = stage_files("generate", task, "Conversation") | files_of(engines.root(engine))
        own = {file for file in reached if f"tasks/{task}/" in file}
        assert not [file for file in own if file.endswith(("grading.py", "selection.py", "evaluation.py"))], own
        assert "workflow_scripts/core/advantages.py" not in reached


@pytest.mark.parametrize("task", plugins.names("tasks"))
def test_no_stage_depends_on_another_task(task):
    stages = {"generate": ["Conversation"], "grade": ["Grading"], "construct_meta": ["Selection"]}
    stages |= {"construct_data": ["Selection"], "evaluate": ["Evaluation"], "freeze_prompts": ["Prompts"]}

    for stage, parts in stages.items():
        for file in stage_files(stage, task, *parts):
            if file.startswith("workflow_scripts/tasks/"):
                assert file.split("/")[2] in (task, f"{task}.py", "__init__.py", "defaults.py"), f"{stage}: {file}"


def test_training_depends_on_its_own_objective_only():
    for name in plugins.names("training/objectives"):
        reached = files_of("workflow_scripts.train:main", objectives.root(name))
        own = {file for file in reached if "/objectives/" in file} - {
            "workflow_scripts/training/objectives/__init__.py"
        }
        assert own == {f"workflow_scripts/training/objectives/{name}.py"}


def test_how_a_stage_runs_is_exempt_and_the_sandbox_is_not():
    for stage in ("generate", "grade", "train", "logp", "construct_data"):
        reached = stage_files(stage, "math", "Conversation", "Grading")
        assert not [
            file for file in reached if file.startswith(("workflow_scripts/core/running/", "workflow_scripts/config/"))
        ]
    assert "supervise" in code.code_table("workflow_scripts.grade:main")["workflow_scripts/core/sandbox.py"]
