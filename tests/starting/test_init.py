"""The start of an own experiment: `init` looks into files and models, and writes configs that pass the dry run."""

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.harness import REPOSITORY, Copy, jobs
from workflow_scripts.config.load import load
from workflow_scripts.core.files import write_dataset, write_json, write_jsonl, write_parquet
from workflow_scripts.core.running.cli import run
from workflow_scripts.init import main
from workflow_scripts.starting.models import size_by_name
from workflow_scripts.starting.write import with_section

SUMS = [{"question": f"What is {n} + 2?", "answer": str(n + 2)} for n in range(40)]


def model_folder(folder: Path, **tokenizer: str) -> str:
    """Make what a look into a model reads: its config, its tokenizer's settings, and a file of weights."""
    write_json(folder / "config.json", {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 1000})
    write_json(folder / "tokenizer_config.json", tokenizer)
    (folder / "model.safetensors").write_bytes(bytes(8))
    return str(folder)


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """Return the working folder, with a model, `model`, and a file of questions, `sums.jsonl`."""
    model_folder(tmp_path / "model")
    write_jsonl(tmp_path / "sums.jsonl", SUMS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOCAL_GPUS", "")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


@pytest.fixture
def init(monkeypatch, capsys):
    """Return a function that calls `init` in the working folder, and returns what it printed."""

    def call(*options: str, fails: bool = False) -> str:
        monkeypatch.setattr(sys, "argv", ["init", *options])
        with pytest.raises(SystemExit) as end:
            run(main)
        printed = "".join(capsys.readouterr())
        assert (end.value.code != 0) == fails, printed
        return printed

    return call


# ---------------------------------------------------------------- configs


def test_the_config_of_a_file_passes_the_dry_run(tmp_path, monkeypatch, init):
    copy = Copy(tmp_path / "copy")
    monkeypatch.chdir(copy.folder)
    monkeypatch.setenv("LOCAL_GPUS", "")
    model_folder(copy.folder / "model")
    write_jsonl(copy.folder / "sums.jsonl", SUMS)

    printed = init("--file", "sums.jsonl", "--model", "model")

    assert "read by the task math; 40 of the first 40 records can be used" in printed
    assert "sums.eval.jsonl: 10 eval questions; sums.train.jsonl: the other 30" in printed
    output = copy.snakemake("-n", "round1_checkpoint", "--configfile", "sums.yaml")
    assert {"generate", "grade", "train", "evaluate"} <= jobs(output)

    text = (copy.folder / "sums.yaml").read_text()
    assert text.endswith("\n")
    for line in filter(None, text.splitlines()):
        assert len(line) <= 140
    cfg = load(yaml.safe_load(text))
    assert cfg.template == "deepseek" and cfg.generate.engine == "transformers"
    assert cfg.train.max_length <= 1000  # the model's context


def test_eval_questions_are_taken_out_of_a_file_without_losing_any(place, init):
    init("--file", "sums.jsonl", "--model", "model", "--name", "mine")

    of_split = {
        split: [json.loads(line) for line in (place / f"mine.{split}.jsonl").read_text().splitlines()]
        for split in ("train", "eval")
    }
    assert len(of_split["eval"]) == 10
    assert sorted(map(str, of_split["train"] + of_split["eval"])) == sorted(map(str, SUMS))


def test_keys_are_found_by_their_names(place, init):
    records = [{"Problem text": r["question"], "topic": "sums", "final_answer": r["answer"]} for r in SUMS]
    write_parquet(place / "other.parquet", records)

    init("--file", "other.parquet", "--model", "model", "--eval-file", "sums.jsonl", "--output", "c.yaml")

    prompts = yaml.safe_load((place / "c.yaml").read_text())["prompts"]
    assert prompts["train"] == {"file": "other.parquet", "question_key": "Problem text", "answer_key": "final_answer"}
    assert prompts["eval"] == {"file": "sums.jsonl"}


def test_a_data_set_with_splits_is_evaluated_on_its_test_split(place, init):
    write_dataset(place / "set", train=SUMS[:30], test=SUMS[30:])

    init("--file", "set", "--model", "model")

    prompts = yaml.safe_load((place / "set.yaml").read_text())["prompts"]
    assert prompts == {"train": {"file": "set"}, "eval": {"file": "set", "split": "test"}}


def test_the_task_follows_from_what_the_records_hold(place, init):
    tests = [{"question": f"Write f{n}.", "test_cases": [f"assert f{n}() == {n}"]} for n in range(30)]
    texts = [{"id": str(n), "prompt": f"Say {n}.", "ref_output_gold": "Some long text." * 30} for n in range(30)]
    write_jsonl(place / "programs.jsonl", tests)
    write_jsonl(place / "texts.jsonl", texts)

    for name, task in (("programs", "code"), ("texts", "reference")):
        init("--file", f"{name}.jsonl", "--model", "model")
        cfg = load(yaml.safe_load((place / f"{name}.yaml").read_text()))
        assert cfg.task == task
    assert cfg.reward == "bleu"


def test_a_model_with_a_chat_template_and_gpus_change_the_config(place, init):
    model_folder(place / "chat", chat_template="{{ messages }}")

    init("--file", "sums.jsonl", "--model", "chat", "--gpus", "4")

    cfg = load(yaml.safe_load((place / "sums.yaml").read_text()))
    assert cfg.template == "chat"
    assert (cfg.generate.engine, cfg.generate.gpus, cfg.train.processes, cfg.train.dtype) == ("vllm", 1, 4, "bfloat16")


def test_a_recipe_keeps_its_settings_and_comments(place, init):
    options = ("--recipe", str(REPOSITORY / "recipes/grpo.yaml"), "--model", "model", "--name", "mine")
    init("--file", "sums.jsonl", *options)

    text = (place / "mine.yaml").read_text()
    ours, recipe = yaml.safe_load(text), yaml.safe_load((REPOSITORY / "recipes/grpo.yaml").read_text())
    assert {key for key in recipe if ours[key] != recipe[key]} == {"name", "prompts", "model", "template"}
    assert "the wider upper bound of DAPO" in text
    assert ours["model"] == {"path": "model"} and ours["template"] == "deepseek"


def test_a_model_of_the_hub_is_read_from_the_cache(place, init, monkeypatch):
    snapshot = place / "hub/models--owner--Some-0.5B/snapshots/0123"
    model_folder(snapshot, chat_template="{{ messages }}")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs/main").write_text("0123")

    monkeypatch.setenv("HF_HUB_CACHE", str(place / "hub"))

    init("--file", "sums.jsonl", "--model", "owner/Some-0.5B")

    cfg = load(yaml.safe_load((place / "sums.yaml").read_text()))
    assert cfg.template == "chat"
    assert cfg.model.parameters == 5e8


def test_on_a_terminal_it_asks_and_enter_takes_the_proposal(place):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "workflow_scripts.init"],
        cwd=place,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "LOCAL_GPUS": ""},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    os.write(ours, b"sums.jsonl\nmodel\n\n\n")

    printed = b""
    while True:
        try:
            printed += os.read(ours, 1000)
        except OSError:  # the other end is closed
            break
    assert process.wait() == 0, printed.decode()
    assert b"[sums]" in printed and b"[taken out of the questions]" in printed
    assert (place / "sums.yaml").exists()


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--model model", "--file is missing"),
        ("--file sums.jsonl", "--model is missing"),
        ("--file no.jsonl --model model", "there is no file no.jsonl"),
        ("--file odd.csv --model model", "--question-key and --answer-key"),
        ("--file sums.jsonl --question-key x --model model", "has no 'x', only 'question', 'answer'"),
        ("--file few.jsonl --model model", "3 questions are too few to take eval questions from"),
        ("--file sums.jsonl --model ./above", "did you mean above/model?"),
        ("--file sums.jsonl --model model/config.json", "is a file; a model is a folder"),
        ("--file sums.jsonl --model bare", "has no weights"),
        ("--file sums.jsonl --model ./nowhere", "there is no folder ./nowhere"),
        ("--file sums.jsonl --model owner/name", "HF_HUB_OFFLINE forbids to download it"),
        ("--file sums.jsonl --model model --task tabular", "its config needs more than a file of questions"),
        ("--file sums.jsonl --model model --task maths", "choose from"),
        ("--file sums.jsonl --model model --recipe {recipes}/tabular.yaml", "do not start from a file of questions"),
        ("--file sums.jsonl --model model --recipe no.yaml", "there is no file no.yaml"),
        ("--file sums.jsonl --model model --output taken.yaml", "this exists already"),
    ],
)
def test_mistakes_are_named(place, init, options, message):
    write_jsonl(place / "few.jsonl", SUMS[:3])
    (place / "odd.csv").write_text("a,b\n1,2\n")
    (place / "taken.yaml").write_text("name: mine\n")
    shutil.copytree(place / "model", place / "bare")
    (place / "bare/model.safetensors").unlink()
    shutil.copytree(place / "model", place / "above/model")

    printed = init(*options.format(recipes=REPOSITORY / "recipes").split(), fails=True)

    assert message in printed
    assert (place / "taken.yaml").read_text() == "name: mine\n"


# ---------------------------------------------------------------- parts


@pytest.mark.parametrize(
    ("name", "size"),
    [("Qwen/Qwen2.5-1.5B-Instruct", "1.5e9"), ("owner/llama-7b", "7e9"), ("owner/smol-135M", "135e6"), ("a/b", None)],
)
def test_sizes_stand_in_names(name, size):
    assert size_by_name(name) == size


def test_a_section_is_replaced_and_the_rest_stays_as_it_was():
    text = "# head\na: 1  # one\nb:  # two\n  c: 2\n\n  d: {e: 3}\n\n# about f\nf: [1]\n"
    assert with_section(text, "b", "b: 5\n") == "# head\na: 1  # one\nb: 5\n\n# about f\nf: [1]\n"
    assert with_section(text, "a", "a: 5\n").startswith("# head\na: 5\nb:  # two\n")
    assert with_section(text, "f", "f: 5\n").endswith("# about f\nf: 5\n")
