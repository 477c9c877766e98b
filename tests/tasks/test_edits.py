"""Test what an edit of a task's code makes again, in runs of the recipes that count as finished without having run."""

import ast
import json
import re
from pathlib import Path

import pytest
import yaml

from tests.harness import NOTHING_TO_DO, Copy, jobs
from workflow_scripts.core.files import write_parquet
from workflow_scripts.core.records import read_records
from workflow_scripts.core.running import plugins

TARGET = "round1_checkpoint"
# A changed comparison in the grading code of each task: file, old text, new text.
GRADERS = {
    "code": ("grading.py", "is_right = shares[-1] == 1", "is_right = shares[-1] > 0.5"),
    "recommend": ("grading.py", 'outcome.success and not answer.get("fault")', "outcome.success"),
    "reference": ("grading.py", "fmean(parts.values())", "min(parts.values())"),
    "tabular": ("grading.py", 'status == "SUCCESS"', 'status != "FAILED"'),
}


# A small config for the task code. The recipe code-tiny trains on existing rows, and its task is math.
CODE = {
    "name": "mine",
    "task": "code",
    "rounds": 1,
    "shards": 1,
    "prompts": {"train": {"file": "train.jsonl"}, "eval": {"file": "eval.jsonl"}},
    "model": {"scratch": {"layers": 1, "width": 32, "heads": 2, "mlp_width": 64}},
    "cold_start": {"file": "solutions.jsonl"},
    "generate": {"trigger": None},
}
CODE_DATA = {
    "train.jsonl": {"question": "Write a function one that returns 1.", "answer": ["assert one() == 1"]},
    "eval.jsonl": {"question": "Write a function two that returns 2.", "answer": ["assert two() == 2"]},
    "solutions.jsonl": {"question": "Write a function three.", "solution": "def three(): return 3"},
}


def mark_as_finished(folder: Path, task: str) -> Copy:
    """Freeze the prompts of a small run, write stand-ins for its other outputs, and let Snakemake record them."""
    copy = Copy(folder)
    config = CODE if task == "code" else yaml.safe_load((copy.folder / f"recipes/{task}-tiny.yaml").read_text())
    copy.configure(config)
    eval_prompts = f"runs/{config['name']}/prompts/eval.parquet"

    for name, record in CODE_DATA.items():
        (copy.folder / name).write_text(json.dumps(record) + "\n")

    output = copy.snakemake("-n", TARGET)
    if "freeze_prompts" in jobs(output):
        copy.snakemake(eval_prompts)
        output = copy.snakemake("-n", TARGET)

    for line in re.findall(r"^    output: (.*)$", output, re.M):
        for name in line.split(", "):
            place_stand_in(copy.folder / name, copy.folder / eval_prompts)

    copy.snakemake("--touch", "--forceall", TARGET)
    return copy


def place_stand_in(path: Path, eval_prompts: Path) -> None:
    """Write what stands in for an output. Prompts that a job makes from a pool must differ from the eval prompts."""
    path.parent.mkdir(parents=True, exist_ok=True)

    if path.suffix == ".parquet":
        prompts = list(read_records(eval_prompts))
        for prompt in prompts:
            prompt["id"] += "-train"
            prompt["question"] += " (train)"
            for message in prompt.get("dialog", []):
                message["content"] += " (train)"
        write_parquet(path, prompts)
    elif not path.suffix:
        path.mkdir(exist_ok=True)
    else:
        path.write_text("{}" if path.suffix == ".json" else "")


def edit_every_function(path: Path) -> None:
    """Add a statement to every function of a file, and a constant."""
    tree = ast.parse(path.read_text())

    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.body.append(ast.parse("edited = True").body[0])
    tree.body.append(ast.parse("EDITED = True").body[0])

    path.write_text(ast.unparse(ast.fix_missing_locations(tree)))


def edit_other_tasks(copy: Copy, task: str) -> None:
    """Edit every function of the other tasks, and their rules."""
    for path in (copy.folder / "workflow_scripts/tasks").glob("*/*.py"):
        if path.parent.name != task:
            edit_every_function(path)

    for path in (copy.folder / "rules/tasks").glob("*.smk"):
        if path.stem != task:
            path.write_text(path.read_text() + "\n\nEDITED = True\n")


def test_every_task_is_covered():
    """The task math is covered by tests/round/test_workflow.py, on a round that really ran."""
    assert set(GRADERS) | {"math"} == set(plugins.names("tasks"))


@pytest.mark.long
@pytest.mark.parametrize("task", GRADERS)
def test_a_changed_grader_generates_nothing_and_the_other_tasks_change_nothing(tmp_path, task):
    copy = mark_as_finished(tmp_path, task)

    edit_other_tasks(copy, task)
    assert NOTHING_TO_DO in copy.snakemake("-n", TARGET)

    file, old, new = GRADERS[task]
    copy.edit(f"workflow_scripts/tasks/{task}/{file}", old, new)
    output = copy.snakemake("-n", TARGET)
    assert {"grade", "evaluate"} <= jobs(output)
    assert not {"generate", "freeze_prompts", "init_model", "cold_start", "construct_sft"} & jobs(output)
    assert f"workflow_scripts/tasks/{task}/{file}" in output.split("Code changed since", 1)[1]
