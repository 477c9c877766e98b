"""Benchmark suites of lm-evaluation-harness run on checkpoints, and their metrics stand beside a run's own.

The tests of `measured` run the real library. `make test-lm-eval` runs them, on round 0 of the default experiment.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from tests.harness import NOTHING_TO_DO, REPOSITORY, Copy, jobs, tiny_config
from workflow_scripts import report
from workflow_scripts.config.load import ConfigError, load
from workflow_scripts.config.sections import Evaluate, Suite
from workflow_scripts.core.files import read_json, write_json
from workflow_scripts.core.records import read_records
from workflow_scripts.evaluate import metrics_of_suites
from workflow_scripts.run_suite import metrics_of, summarise
from workflow_scripts.workflow.rehearsal import smaller
from workflow_scripts.workflow.suites import suite_files

PYTHON = os.environ.get("ROUNDHOUSE_LM_EVAL", "")
needs_lm_eval = pytest.mark.skipif(not PYTHON, reason="needs lm-evaluation-harness's environment: make test-lm-eval")
VLLM = os.environ.get("ROUNDHOUSE_LM_EVAL_VLLM", "")
needs_vllm = pytest.mark.skipif(not VLLM, reason="needs vLLM beside lm-evaluation-harness: make test-lm-eval-vllm")
TASK = REPOSITORY / "tests/data/arithmetic.yaml"


# ---------------------------------------------------------------- the config


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("gsm8k", "gsm8k"),
        ("tasks/mine.yaml", "mine"),
        ({"task": "gsm8k", "shots": 0}, "gsm8k"),
        ({"task": "gsm8k", "name": "gsm8k-0"}, "gsm8k-0"),
    ],
)
def test_a_suite_is_named_after_its_task(value, name):
    assert Suite.model_validate(value).name == name


def test_suites_have_different_names():
    with pytest.raises(ValidationError, match="two suites are named gsm8k"):
        Evaluate.model_validate({"suites": ["gsm8k", {"task": "gsm8k", "shots": 0}]})
    with pytest.raises(ValidationError, match="pattern"):
        Suite.model_validate("a b")


def test_suites_stand_beside_eval_questions():
    config = tiny_config(evaluate={"suites": ["gsm8k"]})
    config["prompts"].pop("eval")
    with pytest.raises(ConfigError, match=r"evaluate\.suites: .* give prompts\.eval"):
        load(config)


def test_a_rehearsal_runs_no_suites():
    config = tiny_config(evaluate={"suites": ["gsm8k"], "backend": "vllm"})
    assert smaller(load(config), config)["evaluate"] == {"suites": [], "backend": "vllm"}


def test_the_files_of_a_task_are_inputs(tmp_path):
    for name in ("base.yaml", "score.py", "a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text("")
    task = {
        "task": "mine",
        "include": "base.yaml",
        "dataset_kwargs": {"data_files": {"test": [str(tmp_path / "a.jsonl"), "https://example.org/x.jsonl"]}},
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(task) + "process_results: !function score.right\n")

    named = suite_files(Suite.model_validate(str(path)))
    assert named == [str(tmp_path / name) for name in ("mine.yaml", "score.py", "base.yaml", "a.jsonl")]
    assert suite_files(Suite.model_validate("gsm8k")) == []


# ---------------------------------------------------------------- results


def test_metrics_have_the_name_of_their_filter():
    entry = {
        "alias": "gsm8k",
        "exact_match,strict-match": 0.25,
        "exact_match_stderr,strict-match": 0.01,
        "acc,none": 1,
        "acc_stderr,none": "N/A",
    }
    assert metrics_of(entry) == {
        "exact_match/strict-match": {"value": 0.25, "stderr": 0.01},
        "acc": {"value": 1.0, "stderr": None},
    }


def results(tasks: dict[str, float], **groups: float) -> dict:
    """Return results in the form of lm-evaluation-harness."""
    entries = {name: {"acc,none": value, "acc_stderr,none": 0.1} for name, value in (tasks | groups).items()}
    return {
        "results": entries,
        "groups": {name: entries[name] for name in groups},
        "n-samples": {name: {"original": 20, "effective": 10} for name in tasks},
        "n-shot": dict.fromkeys(tasks, 5),
        "versions": dict.fromkeys(tasks, 1.0),
    }


def test_a_group_has_its_own_metrics_and_those_of_its_tasks():
    alone = summarise(Suite(task="a"), results({"a": 0.5}))
    assert alone["metrics"] == {"acc": {"value": 0.5, "stderr": 0.1}} and "tasks" not in alone

    group = summarise(Suite(task="both"), results({"a": 0.5, "b": 1.0}, both=0.75))
    assert group["metrics"]["acc"]["value"] == 0.75 and group["n"] == 20
    assert group["tasks"]["b"] == {"metrics": {"acc": {"value": 1.0, "stderr": 0.1}}, "n": 10}

    tag = summarise(Suite(task="tag"), results({"a": 0.5, "b": 1.0}))
    assert {name: metric["value"] for name, metric in tag["metrics"].items()} == {"a acc": 0.5, "b acc": 1.0}


def test_the_table_and_the_plot_show_suites(tmp_path, capsys):
    for n, value in enumerate((0.25, 0.5)):
        summary = summarise(Suite(task="gsm8k"), results({"gsm8k": value}))
        write_json(tmp_path / "gsm8k.json", summary)
        suites = metrics_of_suites([str(tmp_path / "gsm8k.json")])
        evaluation = {"round": n, "accuracy": 0.5, "code_share": 0.0, "n": 4, "by_level": {}, "suites": suites}
        write_json(tmp_path / f"evaluation/r{n}.json", evaluation)

    rows = report.rounds_of(tmp_path, ["accuracy"])
    assert [row["gsm8k: acc"] for row in rows] == [0.25, 0.5]
    assert rows[0]["low gsm8k: acc"] == pytest.approx(0.25 - 1.959964 * 0.1)

    report.show_suites(rows, "mine")
    assert "0.500 ± 0.196" in capsys.readouterr().out
    report.plot({"mine": rows}, {"accuracy": ("accuracy", ".1%")}, str(tmp_path / "plot.svg"))
    assert "benchmark suites" in (tmp_path / "plot.svg").read_text()
    report.write_csv(str(tmp_path / "rounds.csv"), rows)
    assert "gsm8k: acc" in (tmp_path / "rounds.csv").read_text()


# ---------------------------------------------------------------- the real library


def configured(copy: Copy, *suites) -> None:
    config = yaml.safe_load((REPOSITORY / "config.yaml").read_text()) | {"python": {"lm-eval": PYTHON}}
    copy.configure(config | {"evaluate": {"suites": list(suites)}})


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Copy:
    """Return round 0 of the default experiment, evaluated with a suite."""
    copy = Copy(tmp_path_factory.mktemp("suites") / "copy")
    for part in ("prompts", "checkpoints/init", "checkpoints/r0", "data", "ledger"):
        shutil.copytree(REPOSITORY / "runs/arithmetic" / part, copy.path(part))
    shutil.copy(TASK, copy.folder / "facts.yaml")

    configured(copy, "facts.yaml")
    (copy.folder / "output.txt").write_text(copy.snakemake("round0_evaluation"))
    return copy


@needs_lm_eval
def test_the_accuracy_on_the_eval_questions_equals_ours(measured):
    evaluation = read_json(measured.path("evaluation/r0.json"))
    facts = evaluation["suites"]["facts"]

    output = (measured.folder / "output.txt").read_text()
    assert "rule cold_start" not in output
    assert facts["n"] == evaluation["n"] == 360
    assert facts["metrics"]["exact_match/last_number"]["value"] == evaluation["accuracy"]
    assert 0.2 < evaluation["accuracy"] < 0.5
    print(f"accuracy of 360 answers: {evaluation['accuracy']:.4f}, by lm-evaluation-harness and by the run")

    answers = list(read_records(measured.path("evaluation/suites/r0/facts.jsonl")))
    assert sum(answer["metrics"]["exact_match"] for answer in answers) == round(360 * evaluation["accuracy"])
    assert "facts: exact_match/last_number" in output  # the table at the end


@needs_lm_eval
def test_a_further_suite_runs_alone_and_a_changed_task_runs_again(measured):
    assert NOTHING_TO_DO in measured.snakemake("-n", "round0_evaluation")

    configured(measured, "facts.yaml", {"task": "facts.yaml", "name": "few", "limit": 10})
    output = measured.snakemake("-n", "round0_evaluation")
    assert jobs(output) - {"round0_evaluation"} == {"run_suite", "evaluate"}
    assert "suites/r0/few.json" in output and "output: runs/arithmetic/evaluation/suites/r0/facts.json" not in output

    configured(measured, "facts.yaml")
    measured.edit("facts.yaml", "max_gen_toks: 64", "max_gen_toks: 32")
    assert "run_suite" in jobs(measured.snakemake("-n", "round0_evaluation"))
    measured.edit("facts.yaml", "max_gen_toks: 32", "max_gen_toks: 64")
    assert NOTHING_TO_DO in measured.snakemake("-n", "round0_evaluation")


@needs_vllm
def test_the_accuracy_by_vllm_equals_ours(tmp_path):
    run = REPOSITORY / "runs/arithmetic"
    (tmp_path / "runs").symlink_to(REPOSITORY / "runs")
    suite = json.dumps({"task": str(TASK), "name": "facts"})
    command = [VLLM, "-m", "workflow_scripts.run_suite", "--suite", suite, "--settings", '{"backend": "vllm"}']
    command += ["--model", str(run / "checkpoints/r0/checkpoint.json"), "--output", str(tmp_path / "facts.json")]
    path = f"{Path(VLLM).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "PATH": path}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)

    facts = read_json(tmp_path / "facts.json")
    accuracy = facts["metrics"]["exact_match/last_number"]["value"]
    assert facts["n"] == 360
    assert accuracy == pytest.approx(read_json(run / "evaluation/r0.json")["accuracy"], abs=0.01)  # rounding differs
    print(f"accuracy of 360 answers by lm-evaluation-harness with vLLM: {accuracy:.4f}")


@needs_lm_eval
def test_an_unknown_task_ends_with_the_nearest_names(measured):
    command = [PYTHON, "-m", "workflow_scripts.run_suite", "--suite", '{"task": "gsm8kk"}', "--output", "x.json"]
    command += ["--model", "runs/arithmetic/checkpoints/r0/checkpoint.json"]
    ended = subprocess.run(command, cwd=measured.folder, capture_output=True, text=True)

    assert ended.returncode == 65
    assert "lm-evaluation-harness has no task 'gsm8kk'; did you mean gsm8k" in ended.stderr


@needs_lm_eval
def test_the_suites_that_recipes_name_exist():
    named = set()
    for recipe in REPOSITORY.glob("recipes/*.yaml"):
        for line in recipe.read_text().splitlines():
            if line.startswith("# evaluate: "):
                suites = yaml.safe_load(line.removeprefix("# "))["evaluate"]["suites"]
                named |= {Suite.model_validate(suite).task for suite in suites}
    assert named

    code = "import sys; from lm_eval.tasks import TaskManager; print(set(sys.argv[1:]) - set(TaskManager().all_tasks))"
    ended = subprocess.run([PYTHON, "-c", code, *named], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "set()"
