"""Each fault that would spoil a real run is found by the rehearsal's checks."""

import json
import sys

import pytest
import yaml

from tests.conversations import CHATML
from tests.harness import REPOSITORY
from tests.published_data import autocode_seed
from workflow_scripts import tasks
from workflow_scripts.config.load import load
from workflow_scripts.core.workers import Workers
from workflow_scripts.rehearsal.checks import artefacts, chat, data, machine, windows
from workflow_scripts.rehearsal.rehearsed import Rehearsed
from workflow_scripts.workflow.environments import Environments
from workflow_scripts.workflow.rehearsal import smaller


def grades(findings) -> list[str]:
    return [finding.grade for finding in findings]


def recipe(name: str, **changes) -> dict:
    """Return the values of a recipe of this repository."""
    return yaml.safe_load((REPOSITORY / f"recipes/{name}.yaml").read_text()) | changes


def rehearsed(values: dict) -> Rehearsed:
    return Rehearsed({"recipe": values, "rehearsal": smaller(load(values), values)})


# ---------------------------------------------------------------- data


def test_a_cold_start_that_teaches_names_of_data_sets():
    pairs = [(record["q"], record["s"]) for record in autocode_seed()]
    findings = list(data.judge_taught(pairs))

    assert "fail" in grades(findings)
    assert "4 different answers" in findings[0].text and "MetaMath" in findings[0].text


def test_a_cold_start_that_teaches_solutions_is_no_fault():
    pairs = [(record["q"], record["a"]) for record in autocode_seed()]
    assert grades(data.judge_taught(pairs)) == ["know"]


def test_a_reference_that_no_answer_matches():
    grading = tasks.load("math", "Grading")
    rehearsal = tasks.load("math", "Rehearsal")
    whole = {"id": "a", "question": "?", "level": "x", "reference": "She sells nine eggs.\nShe gets two dollars each."}

    with Workers() as run:
        assert not data.matches_itself(grading, rehearsal, whole, run)
        assert data.matches_itself(grading, rehearsal, whole | {"reference": "18"}, run)
        assert data.matches_itself(grading, rehearsal, whole | {"reference": "So <<9*2=18>>18 dollars.\n#### 18"}, run)
        assert data.matches_itself(grading, rehearsal, whole | {"reference": r"\frac{1}{2}"}, run)


def test_eval_questions_that_are_train_questions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    questions = [{"question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(40)]
    for name, chosen in (("train", questions), ("eval", questions[:10])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in chosen))

    prompts = {"train": {"file": "train.jsonl"}, "eval": {"file": "eval.jsonl"}}
    values = {"name": "overlap", "task": "math", "prompts": prompts, "model": {"path": "Qwen/Qwen2.5-7B"}}
    findings = list(data.check(rehearsed(values)))

    [overlap] = [finding for finding in findings if "eval questions as well" in finding.text]
    assert (overlap.grade, overlap.place) == ("waste", "prompts.train")
    assert "10 of 40 (25.0%)" in overlap.text


def test_train_questions_that_resemble_eval_questions_or_one_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = (REPOSITORY / "tests/data/gsm8k.jsonl").read_text().splitlines()
    contained = json.loads(lines[30]) | {"id": "contained"}
    contained["question"] = f"Read this. {contained['question']}"
    near = json.loads(lines[4]) | {"id": "near"}
    near["question"] = near["question"].upper()
    (tmp_path / "train.jsonl").write_text("\n".join([*lines[:28], json.dumps(contained), json.dumps(near)]))
    (tmp_path / "eval.jsonl").write_text("\n".join(lines[30:]))

    prompts = {"train": {"file": "train.jsonl"}, "eval": {"file": "eval.jsonl"}}
    values = {"name": "similar", "task": "math", "prompts": prompts, "model": {"path": "Qwen/Qwen2.5-7B"}}
    findings = {finding.text: finding for finding in data.check(rehearsed(values))}

    for reason in ("it contains much of an eval question", "it nearly equals an earlier question"):
        finding = findings[f"1 of 30 (3.3%) prompts resemble others: {reason}."]
        assert (finding.grade, finding.place) == ("waste", "prompts.train")
        assert "prompts.screening" in finding.advice


# ---------------------------------------------------------------- templates and ends


def test_a_template_without_a_generation_prompt(tokenizers):
    tokenizer = tokenizers["chatml"]
    assert "fail" not in grades(chat.template_faults(tokenizer, "chat"))

    own = tokenizer.chat_template
    tokenizer.chat_template = CHATML.split("{% if add_generation_prompt %}")[0]
    try:
        [fault] = chat.template_faults(tokenizer, "chat")
    finally:
        tokenizer.chat_template = own
    assert fault.grade == "fail"
    assert "no generation prompt" in fault.text


def test_a_template_that_the_tokenizer_lacks(tokenizers):
    assert grades(chat.template_faults(tokenizers["plain"], "chat")) == ["fail"]
    assert grades(chat.template_faults(tokenizers["chatml"], "deepseek")) == ["waste"]
    assert grades(chat.template_faults(tokenizers["plain"], "deepseek")) == []


def test_an_eos_that_is_never_produced(tokenizers):
    tokenizer = tokenizers["chatml"]
    other = tokenizer.convert_tokens_to_ids("<pad>")

    [fault] = chat.ends_of_answers(tokenizer, "chat", [other])
    assert fault.grade == "fail"
    assert "never produced" in fault.text
    assert not list(chat.ends_of_answers(tokenizer, "chat", [tokenizer.eos_token_id, other]))


def test_a_base_model_whose_template_closes_turns_otherwise(tokenizers):
    tokenizer = tokenizers["base"]
    [fault] = chat.ends_of_answers(tokenizer, "chat", [tokenizer.eos_token_id])
    assert fault.grade == "waste"
    assert "<|im_end|>" in fault.text


def test_answers_that_never_end_by_themselves():
    records = [{"finish": "length"}] * 4
    assert grades(artefacts.ends("generate.eval", records)) == ["fail"]
    assert grades(artefacts.ends("generate.eval", [*records, {"finish": "eos"}])) == ["know"]


# ---------------------------------------------------------------- the context


def test_a_program_that_prints_more_than_the_context_holds():
    grown = {"prompt_tokens": [0] * 100, "tokens": [0] * 5000}
    [fault] = artefacts.beyond_window("generate.auto", [grown, grown | {"tokens": [0]}], 4096)
    assert fault.grade == "fail"
    assert "5,100 tokens" in fault.text and "1 of 2" in fault.text


def test_prompts_that_leave_no_room():
    findings = list(windows.judge([4000, 100, 5000, 200], max_tokens=2048, window=4096, place="generate.auto"))
    assert grades(findings) == ["fail", "waste", "know"]
    assert "1 of 4 (25.0%) prompts are longer" in findings[0].text


# ---------------------------------------------------------------- the machine


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Let this machine look as if it had Slurm."""
    (tmp_path / "sbatch").write_text("#!/bin/sh\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv(machine.ELSEWHERE, raising=False)


def test_a_missing_package(cluster, monkeypatch):
    cfg = load(recipe("reference", python={"vllm": sys.executable, "deepspeed": sys.executable}))
    needed = machine.needed_packages(cfg, Environments(cfg, str(REPOSITORY), uses_conda=False))
    assert "deepspeed" in needed["deepspeed"] and "vllm" in needed["vllm"] and "torch" in needed["roundhouse"]

    monkeypatch.setattr(machine, "lacking", lambda python, names: sorted({"deepspeed"} & set(names)))
    [fault] = machine.packages(cfg)
    assert fault.grade == "fail"
    assert "lacks deepspeed" in fault.text and "train" in fault.text

    monkeypatch.setenv(machine.ELSEWHERE, "1")
    assert grades(machine.packages(cfg)) == ["know"]


# ---------------------------------------------------------------- stages that fail


def test_the_last_words_of_a_failed_stage():
    assert artefacts.last_words("reading\nerror: data.json: there is no key 'a'\n") == "data.json: there is no key 'a'"
    assert artefacts.last_words("error: no rows\nexit status 65\n") == "no rows"
    traceback = "Traceback (most recent call last):\n  File x\nValueError: too large\n"
    assert artefacts.last_words(traceback) == "ValueError: too large"
    assert artefacts.last_words("16 answers\n") is None
