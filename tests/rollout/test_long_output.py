"""The stage `generate` with programs that print more than the model's context holds."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.harness import REPOSITORY
from workflow_scripts import tasks
from workflow_scripts.core import checkpoint
from workflow_scripts.core.files import read_json
from workflow_scripts.core.pickles import read_pickle
from workflow_scripts.core.templates import render
from workflow_scripts.core.tokens import encode_prompt
from workflow_scripts.init_model import make_model, train_tokenizer

PROGRAM = "```python\nprint('12345 ' * 2000)\n```output"
DIRECT = "The answer is 7."
SCRATCH = {"layers": 2, "width": 32, "heads": 2, "mlp_width": 64, "context": 512, "init_std": 0.3}
QUESTIONS = [{"id": f"{i:016x}", "question": f"What is {i} + 4?", "reference": "7", "level": "x"} for i in range(8)]
TEMPLATE = "deepseek"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """Return a checkpoint, with prompts and a script beside it: half of the answers run a program."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = train_tokenizer([PROGRAM, DIRECT, "What is 3 + 4?"] * 10, 300)

    def save(place: Path) -> None:
        make_model(SCRATCH, tokenizer, 0).save_pretrained(place)
        tokenizer.save_pretrained(place)

    checkpoint.publish(folder / "checkpoint.json", save, {})
    pd.DataFrame(QUESTIONS).to_parquet(folder / "prompts.parquet")

    conversation = tasks.load("math", "Conversation", {}, {})
    script = []
    for question in QUESTIONS:
        [request] = conversation.requests(question, "auto").values()
        tokens = encode_prompt(tokenizer, render(TEMPLATE, request, tokenizer))
        answers = [{"turns": [PROGRAM, DIRECT]}, {"turns": [DIRECT]}]
        script.append({"id": question["id"], "prompt_tokens": tokens, "answers": answers})
    (folder / "script_train.json").write_text(json.dumps(script))
    return folder


def generate(model: Path, output: Path, **sampling: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the answers and their manifest."""
    sampling = {"samples": 2, "max_tokens": 200, "turns": 3} | sampling
    settings = {"engine": "playback", "script": str(model), "auto": sampling}
    command = [sys.executable, "-m", "workflow_scripts.generate", "--task", "math", "--version", "auto"]
    command += ["--prompts", str(model / "prompts.parquet"), "--model", str(model / "checkpoint.json")]
    command += ["--settings", json.dumps(settings), "--template", TEMPLATE, "--output", str(output)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    return read_pickle(output), read_json(output.with_suffix(".json"))


def test_an_answer_whose_program_prints_too_much_ends_with_length_and_is_counted(model, tmp_path):
    answers, manifest = generate(model, tmp_path / "answers.pkl")

    assert manifest["rows"] == 16
    assert manifest["finishes"] == {"eos": 8, "length": 8}
    for answer in answers:
        assert (answer["finish"] == "length") == answer["answer"].startswith("```python")
        assert len(answer["prompt_tokens"]) + len(answer["tokens"]) <= SCRATCH["context"]


def test_with_a_limit_the_output_loses_its_middle_and_the_answer_goes_on(model, tmp_path):
    answers, manifest = generate(model, tmp_path / "answers.pkl", reply_tokens=60)

    assert manifest["finishes"] == {"eos": 16}
    assert Counter("[…]" in answer["answer"] for answer in answers) == {True: 8, False: 8}
    assert all(answer["answer"].endswith(DIRECT) for answer in answers)
