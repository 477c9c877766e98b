"""A task, an objective and an engine are added by adding files only, and then train a round for real."""

import sys

import pytest
import yaml

from tests.harness import NOTHING_TO_DO, Copy, tiny_config
from workflow_scripts.core.running import plugins

TASK = {
    "workflow_scripts/tasks/echo/__init__.py": '"""Answers should be as long as the reference."""\n',
    "workflow_scripts/tasks/echo/settings.py": '''
"""The config section `echo`."""

from typing import ClassVar

from pydantic import PositiveInt

from workflow_scripts.config.task_section import TaskSection


class Settings(TaskSection):
    makes_up: ClassVar[bool] = True

    longest: PositiveInt = 5  # letters of a made-up word
''',
    "workflow_scripts/tasks/echo/prompts.py": '''
"""Made-up words."""

from workflow_scripts.tasks import defaults


class Prompts(defaults.Prompts):
    def read(self, source, split, seed):
        for level, count in source["count"].items():
            for i in range(count):
                word = "ab"[i % 2] * (1 + i % self.settings.get("longest", 5))
                yield {"id": f"{split}{i}", "question": f"Say {word} {split} {i}.", "reference": word, "level": level}
''',
    "workflow_scripts/tasks/echo/cold_start.py": '''
"""Words and their echo."""

from workflow_scripts.tasks import defaults


class ColdStart(defaults.ColdStart):
    def examples(self, cold_start, seed):
        for i in range(cold_start["count"]["word"]):
            word = "ab"[i % 2] * (1 + i % 5)
            yield {"question": f"Say {word} now {i}.", "pieces": [(f" {word}", True)], "trigger": "auto"}
''',
    "workflow_scripts/tasks/echo/grading.py": '''
"""The reward falls with the difference in length."""

from workflow_scripts.tasks import defaults


class Grading(defaults.Grading):
    def grade(self, answer, run):
        return {"reward": 1 / (1 + abs(len(answer["answer"]) - len(answer["reference"])))}
''',
    "workflow_scripts/tasks/echo/wing.py": '''
"""The task's answers to the rules."""

from workflow_scripts.config.sections import settings_of
from workflow_scripts.tasks import defaults


class Wing(defaults.Wing):
    def settings(self, stage):
        return settings_of(self.cfg.task_section, include={"longest"}) if stage == "freeze_prompts" else {}

    def lengths(self, n):
        return f"{self.run.folder}/lengths/r{n}.json"

    def products(self, n):
        return [self.lengths(k) for k in range(1, n + 1)]
''',
    "workflow_scripts/tasks/echo/measure.py": '''
"""Write the lengths of a round's answers."""

from workflow_scripts.core.files import write_json
from workflow_scripts.core.records import read_records
from workflow_scripts.core.running.cli import add_code_argument, arguments, run


def main() -> None:
    parser = arguments(__doc__)
    add_code_argument(parser)
    parser.add_argument("--results", nargs="+", required=True, help="graded answers")
    parser.add_argument("--output", required=True, help="the .json to write")
    args = parser.parse_args()
    write_json(args.output, [len(answer["answer"]) for path in args.results for answer in read_records(path)])


if __name__ == "__main__":
    run(main)
''',
    "rules/tasks/echo.smk": """
rule measure:
    input:
        run.graded("{n}", "auto"),
    output:
        wing.lengths("{n}"),
    log:
        run.log("measure/r{n}"),
    benchmark:
        run.benchmark("measure/r{n}")
    params:
        **params_of.stage("measure", module="tasks.echo.measure"),
    shell:
        commands.stage("tasks.echo.measure", "--results {input} --output {output}")
""",
}
OBJECTIVE = {
    "workflow_scripts/training/objectives/reinforce.py": '''
"""The plain policy gradient: -Σ_t A log π(t)."""

UNIT = "tokens"
NEEDS = ()


def loss(tokens, settings):
    return -(tokens.advantage * tokens.logp).sum(), {}
''',
}
ENGINE = {
    "workflow_scripts/engines/copycat.py": '''
"""The transformers engine under another name, in an environment of its own."""

from workflow_scripts.engines import transformers

ENVIRONMENT = "copycat"


class Engine(transformers.Engine):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.version = self.version | {"engine": "copycat"}
''',
    "envs/copycat.yaml": "channels: [conda-forge]\ndependencies: [python=3.11]\n",
}


def add(copy: Copy, files: dict[str, str]) -> None:
    """Add files to a copy of the repository; none of them may exist already."""
    for name, text in files.items():
        path = copy.folder / name
        assert not path.exists(), f"{name} exists: a plug-in must not change an existing file"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.lstrip("\n"))


def echo_config() -> dict:
    config = tiny_config(name="echo", task="echo", echo={"longest": 4})
    del config["math"]
    config["prompts"] = {"train": {"count": {"word": 8}}, "eval": {"count": {"word": 4}}}
    config["cold_start"]["count"] = {"word": 300}
    config["generate"] |= {"engine": "copycat", "trigger": None}
    config["generate"]["auto"] |= {"max_tokens": 8, "turns": 1}
    config["generate"]["eval"] |= {"max_tokens": 8, "turns": 1}
    config["python"] = {"copycat": sys.executable}
    config["train"] |= {"objective": "reinforce"}
    config["data"] |= {"advantage": "group"}
    return config


@pytest.mark.long
def test_a_task_with_a_stage_an_objective_and_an_engine_are_added_without_changing_a_file(tmp_path):
    copy = Copy(tmp_path / "plugged")
    add(copy, TASK | OBJECTIVE | ENGINE)
    (copy.folder / "echo.yaml").write_text(yaml.safe_dump(echo_config()))

    copy.snakemake("round1_checkpoint", "--configfile", "echo.yaml")

    run = copy.folder / "runs/echo"
    assert (run / "checkpoints/r1/checkpoint.json").exists()
    assert (run / "lengths/r1.json").exists()
    log = (run / "logs/generate/r1_auto_2_0.log").read_text()
    assert "answers" in log
    assert '"engine": "copycat"' in (run / "results/r1/auto/2_0.json").read_text()
    assert '"objective": "reinforce"' in (run / "checkpoints/r1/checkpoint.json").read_text()
    assert NOTHING_TO_DO in copy.snakemake("-n", "round1_checkpoint", "--configfile", "echo.yaml")


def test_an_added_task_checks_its_section(tmp_path):
    copy = Copy(tmp_path / "checked")
    add(copy, TASK | OBJECTIVE | ENGINE)
    (copy.folder / "echo.yaml").write_text(yaml.safe_dump(echo_config() | {"echo": {"longst": 4}}))

    output = copy.snakemake("-n", "round1_checkpoint", "--configfile", "echo.yaml", fails=True)

    assert "config: echo.longst: there is no such key; did you mean 'longest'?" in output


@pytest.mark.parametrize("files", [TASK, OBJECTIVE, ENGINE], ids=["task", "objective", "engine"])
def test_an_addition_leaves_finished_runs_alone(fork, files):
    add(fork, files)
    assert NOTHING_TO_DO in fork.snakemake("-n", "round1_checkpoint")


def test_a_name_that_no_file_has_is_answered_with_those_that_exist(tmp_path):
    config = tiny_config()
    config["train"]["objective"] = "reinforce"
    config["generate"]["engine"] = "copycat"
    output = Copy(tmp_path / "unknown", config).snakemake("-n", fails=True)

    known = ", ".join(plugins.names("training/objectives"))
    assert f"config: train.objective: there is no objective 'reinforce'; choose from {known}" in output
    assert (
        "config: generate.engine: there is no engine 'copycat'; choose from openai, playback, transformers, vllm"
        in output
    )
