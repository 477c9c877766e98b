"""Thirty mistakes that people make in their first days, and what they are told. Each message says what to do."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Copy, tiny_config
from workflow_scripts import freeze_prompts, rewards
from workflow_scripts.config.load import ConfigError, load
from workflow_scripts.core.checkpoint import model_folder
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import write_json
from workflow_scripts.core.running.cli import run

CONFIG_MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "1 a mistyped key": ({"train": {"lrr": 1e-5}}, "train.lrr: there is no such key; did you mean 'lr'?"),
    "2 a key of TRL": (
        {"train": {"learning_rate": 1e-5}},
        "there is no such key; it is called 'lr' here",
    ),
    "3 a key of vLLM": (
        {"generate": {"auto": {"max_new_tokens": 64}}},
        "generate.auto.max_new_tokens: there is no such key; it is called 'max_tokens' here",
    ),
    "4 GRPO as an objective": (
        {"train": {"objective": "grpo"}},
        "GRPO is `objective: clip` with `data: {advantage: group_std}`, as in recipes/grpo.yaml",
    ),
    "5 an engine by another name": ({"generate": {"engine": "hf"}}, "Hugging Face's generation is the engine `transf"),
    "6 a model as text": (
        {"model": "Qwen/Qwen2.5-7B"},
        "model: this is a section; write `model: {path: Qwen/",
    ),
    "7 a file as text": (
        {"prompts": {"train": "a.jsonl"}},
        "prompts.train: this is a section; write `train: {file: a.jsonl}`",
    ),
    "8 false in place of null": (
        {"generate": {"trigger": False}},
        "generate.trigger: this is a section; to leave it out, write `trigger: null`",
    ),
    "9 true in place of a section": (
        {"train": {"lora": True}},
        "train.lora: this is a section with the keys r, al",
    ),
    "10 a name with a space": ({"name": "my run"}, "name: it is part of file names: letters, digits and ._- only"),
    "11 a word in place of a number": ({"rounds": "three"}, "rounds: Input should be a valid integer"),
    "12 a mistyped task": ({"task": "maths"}, "task: there is no task 'maths'; choose from code, math, "),
    "13 another task with the old section": (
        {"task": "reference"},
        "math: there is no such key; this section belongs to task math, but the task is reference",
    ),
    "14 both a path and scratch": ({"model": {"path": "x"}}, "model: give either `path` or `scratch`; both are given"),
    "15 one answer per question with group advantages": (
        {"data": {"advantage": "group_std"}, "generate": {"auto": {"samples": 1}, "trigger": None}},
        "generate.auto.samples: 1 answer is no group",
    ),
    "16 greedy answers to learn from": (
        {"generate": {"auto": {"temperature": 0}}},
        "generate.auto.temperature: 0 is greedy, but a round learns from samples; use 1.0",
    ),
    "17 the same file for training and evaluation": (
        {"prompts": {"train": {"file": "a.jsonl"}, "eval": {"file": "a.jsonl"}}},
        "prompts.eval: these are the questions of prompts.train (a.jsonl)",
    ),
    "18 a reward in a file that is not there": ({"reward": "mine.py:short"}, "reward.0: there is no file mine.py"),
    "19 a mistyped reward": ({"reward": [{"reward": "lenght"}]}, "reward.0: reward: there is no reward 'lenght'"),
}


def changed(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return a config with nested changes."""
    result = dict(config)
    for key, value in changes.items():
        is_nested = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = changed(result[key], value) if is_nested else value
    return result


@pytest.mark.parametrize("mistake", CONFIG_MISTAKES)
def test_mistakes_in_the_config(mistake):
    changes, message = CONFIG_MISTAKES[mistake]
    config = changed(tiny_config(), changes)
    if "prompts" in changes:
        config["prompts"] |= changes["prompts"]

    with pytest.raises(ConfigError) as error:
        load(config)

    assert message in str(error.value)


def test_faults_of_keys_and_between_sections_are_told_at_once():
    config = changed(
        tiny_config(),
        {"train": {"lrr": 1, "dtype": "bfloat16"}, "generate": {"auto": {"temperature": 0}, "batch_size": "many"}},
    )
    with pytest.raises(ConfigError) as error:
        load(config)

    lines = str(error.value).splitlines()
    for start in ("train.lrr: ", "generate.batch_size: ", "generate.auto.temperature: 0 is", "logp.dtype float32 and"):
        assert any(line.startswith(f"config: {start}") for line in lines), lines


def test_a_wrong_key_is_not_blamed_twice():
    config = changed(tiny_config(), {"train": {"objective": "dpoo"}, "data": {"tag": "x"}})
    with pytest.raises(ConfigError) as error:
        load(config)
    assert len(str(error.value).splitlines()) == 1

    with pytest.raises(ConfigError) as error:
        load(changed(tiny_config(), {"task": "maths"}))
    assert "config: math" not in str(error.value)


# ---------------------------------------------------------------- files of questions

FILE_MISTAKES = {
    "20 a column with another name": ("train.csv", "frage,antwort\na,1\n", "name the keys of question and answer with"),
    "21 semicolons in a .csv": (
        "train.csv",
        "question;answer\na;1\n",
        "its columns seem to be separated by semi",
    ),
    "22 a broken line": (
        "train.jsonl",
        '{"question": "a", "answer": "1"}\n{"question": "b",\n',
        "train.jsonl, line 2: ",
    ),
    "23 solutions without a final answer": (
        "train.jsonl",
        json.dumps({"question": "a", "answer": "First one adds the numbers,\nand then nothing is said.\n"}),
        "the reference is a worked solution without a marked final answer (#### or \\boxed)",
    ),
    "24 questions that are eval questions": (
        "train.jsonl",
        json.dumps({"question": "What is 1+1?", "answer": "2"}),
        "1 × the question is also an eval question",
    ),
    "25 an empty file": ("train.jsonl", "", "there are no records"),
}


@pytest.mark.parametrize("mistake", FILE_MISTAKES)
def test_mistakes_in_files_of_questions(mistake, tmp_path, monkeypatch, capsys):
    name, text, message = FILE_MISTAKES[mistake]
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(text)
    Path("eval.jsonl").write_text(json.dumps({"question": "What is 1+1?", "answer": "2"}))
    settings = json.dumps({"train": {"file": name}, "eval": {"file": "eval.jsonl"}})
    monkeypatch.setattr(sys, "argv", ["freeze_prompts", "--task", "math", "--settings", settings, "--output", "out"])

    with pytest.raises(SystemExit) as end:
        run(freeze_prompts.main)

    assert end.value.code == 65  # no further attempt can cure it
    assert message in capsys.readouterr().err


# ---------------------------------------------------------------- models, rewards, and the command line


def test_26_the_folder_of_a_model_in_place_of_its_checkpoint(tmp_path):
    write_json(tmp_path / "tiny/config.json", {})
    with pytest.raises(BadInput, match=r"is the folder of a model; give the checkpoint\.json beside a folder `model`"):
        model_folder(tmp_path / "tiny")


def test_27_an_error_in_a_reward_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text("def short(answer, references, record):\n    return 1 / len(answer)\n")

    with pytest.raises(BadInput, match=r"record a\.auto\.0: ZeroDivisionError: .*mine\.py, line 2, in short\)"):
        rewards.compute(rewards.load("mine.py:short", None), "", ["x"], {"uid": "a.auto.0"})


@pytest.fixture(scope="module")
def own_model(tmp_path_factory) -> Copy:
    """Return a copy whose config names a model with a chat template, and keeps the cold start of the default one."""
    copy = Copy(tmp_path_factory.mktemp("own") / "copy")
    config = tiny_config(model={"path": "chat"})
    config.pop("template", None)
    copy.configure(config)
    write_json(copy.folder / "chat/config.json", {})
    write_json(copy.folder / "chat/tokenizer_config.json", {"chat_template": "{{ messages }}"})
    (copy.folder / "chat/model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return copy


def test_28_and_29_a_chat_model_without_its_template_and_a_cold_start_that_was_left_in(own_model):
    output = own_model.snakemake("-n", "round1_checkpoint")
    assert "warning: template: chat has a chat template, but the config names none" in output
    assert "warning: cold_start.count: chat is trained on examples that the task makes up" in output


def test_30_a_section_that_comes_twice(own_model, tmp_path):
    again = Copy.at(tmp_path / "again")
    shutil.copytree(own_model.folder, again.folder, symlinks=True)
    text = (again.folder / "config.yaml").read_text()
    last = len(text.splitlines()) + 1
    (again.folder / "config.yaml").write_text(f"{text}train: {{lr: 1e-5}}\n")

    output = again.snakemake("-n", "round1_checkpoint", fails=True)

    first = next(n for n, line in enumerate(text.splitlines(), 1) if line.startswith("train:"))
    assert f"config.yaml, line {last}: the key `train` comes twice (see line {first}); keep one of them" in output


def test_commands_without_a_run_say_so(tmp_path):
    for module, message in (
        ("trace x", "there is no run here; name its folder with --run"),
        ("report --run runs/none", "nothing has been made here yet"),
        ("page --run runs/none", "nothing has been made here yet"),
    ):
        command = [sys.executable, "-m", *f"workflow_scripts.{module}".split()]
        environment = {"PYTHONPATH": str(Path(__file__).parents[1]), "PATH": "/usr/bin:/bin"}
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
        assert result.returncode == 65 and message in result.stderr, result.stderr


def test_the_list_has_thirty_mistakes():
    text = Path(__file__).read_text()
    numbers = {int(name.split()[0]) for name in (*CONFIG_MISTAKES, *FILE_MISTAKES)}
    numbers |= {number for number in range(26, 31) if f"_{number}_" in text}
    assert numbers == set(range(1, 31))
