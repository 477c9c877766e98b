"""Prompts are frozen and validated, from a file, made up or edited by hand."""

import contextlib
import json

import pytest

from tests.harness import NOTHING_TO_DO, edit_prompts, outputs, tiny_config
from workflow_scripts import tasks
from workflow_scripts.config.sections import Prompts
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json
from workflow_scripts.core.identity import record_id, shard_of
from workflow_scripts.core.records import read_records
from workflow_scripts.freeze_prompts import check_edited, freeze

TARGETS = [f"runs/arithmetic/results/r1/auto/2_{rank}.pkl" for rank in range(2)]


def line(question: str, answer: str) -> str:
    return json.dumps({"question": question, "answer": answer})


@pytest.mark.long
def test_prompts_from_a_file_are_watched_at_their_source(fork):
    lines = [line(f"What is {i} + 1?", str(i + 1)) for i in range(20)]
    source = fork.folder / "mine.jsonl"
    source.write_text("\n".join([*lines, '{"question": ""}', lines[0]]))
    config = tiny_config()
    config["prompts"]["train"] = {"file": "mine.jsonl", "count": None}
    fork.configure(config)

    fork.snakemake(*TARGETS)
    rejects = [json.loads(text)["reason"] for text in fork.path("prompts/rejects.jsonl").read_text().splitlines()]
    assert rejects == ["no question", "the question occurs before"]
    assert NOTHING_TO_DO in fork.snakemake("-n", *TARGETS)

    source.write_text("\n".join([*lines[:7], line("What is 7 + 2?", "9"), *lines[8:]]))
    shards = {shard_of(record_id(question), 2) for question in ("What is 7 + 1?", "What is 7 + 2?")}
    output = fork.snakemake("-n", *TARGETS)
    assert sorted(outputs(output, "generate")) == [TARGETS[shard] for shard in sorted(shards)]
    fork.snakemake(*TARGETS)
    assert NOTHING_TO_DO in fork.snakemake("-n", *TARGETS)

    source.write_text("{")
    assert "mine.jsonl, line 1: not JSON" in fork.snakemake("-n", *TARGETS, fails=True)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"question": "What is 1 + 1?"}, None),
        ({"reference": None}, "no answer"),
        ({"id": None}, "no id"),
        ({"level": " "}, "no level"),
        ({"id": "q2"}, "the id q2 occurs before"),
        ({"question": "Question 2"}, "the question occurs before"),
    ],
)
def test_prompts_edited_by_hand_are_validated(change, reason):
    prompts = [{"id": f"q{i}", "question": f"Question {i}", "reference": "1", "level": "a"} for i in range(4)]
    prompts[3] |= change

    message = rf"train.parquet, row 3 .*{reason}"
    with pytest.raises(BadInput, match=message) if reason else contextlib.nullcontext():
        check_edited(tasks.load("math", "Prompts"), "train.parquet", "train", "nowhere.parquet", prompts)


def test_a_fault_made_by_hand_stops_the_dry_run(fork):
    edit_prompts(fork, lambda frame: frame.assign(reference=[None, *frame["reference"][1:]]))
    output = fork.snakemake("-n", "round1_checkpoint", fails=True)

    assert "train.parquet, row 0" in output
    assert "no answer" in output


def test_an_edit_by_hand_is_not_overwritten_when_its_source_changes(fork):
    source = fork.folder / "mine.jsonl"
    source.write_text(line("What is 1 + 1?", "2"))
    config = tiny_config()
    config["prompts"]["train"] = config["prompts"]["eval"] = {"file": "mine.jsonl"}
    config["prompts"]["eval"] = {"file": "eval.jsonl"}
    (fork.folder / "eval.jsonl").write_text(line("What is 2 + 2?", "4"))
    fork.configure(config | {"name": "edited"})
    fork.snakemake("-n", "runs/edited/checkpoints/init/checkpoint.json")

    frozen = fork.folder / "runs/edited/prompts/train.parquet"
    frozen.write_bytes(frozen.read_bytes() + b" ")
    source.write_text(line("What is 1 + 3?", "4"))
    output = fork.snakemake("-n", "runs/edited/checkpoints/init/checkpoint.json", fails=True)

    assert "train.parquet was edited by hand, and what it was made from changed too" in output


# ---------------------------------------------------------------- several eval sets


def write_lines(path, *lines: str) -> str:
    path.write_text("\n".join(lines))
    return str(path)


def test_eval_sets_are_frozen_together_and_may_share_ids_and_questions(tmp_path):
    easy = write_lines(tmp_path / "easy.jsonl", '{"id": 1, "question": "What is 1 + 1?", "answer": "2"}')
    both = write_lines(
        tmp_path / "both.jsonl",
        '{"id": 1, "question": "What is 1 + 1?", "answer": "2", "level": "sums"}',
        '{"id": 2, "question": "What is 2 * 2?", "answer": "4"}',
        '{"id": 3, "question": "What is 2 * 2?", "answer": "4"}',
    )
    train = write_lines(tmp_path / "train.jsonl", line("What is 2 * 2?", "4"), line("What is 5 + 5?", "10"))
    settings = Prompts.model_validate(
        {"train": {"file": train}, "eval": {"easy": {"file": easy}, "both": {"file": both}}}
    )
    freeze(tasks.load("math", "Prompts"), settings, 0, tmp_path / "prompts")

    frozen = list(read_records(tmp_path / "prompts/eval.parquet"))
    assert [(prompt["id"], prompt["set"], prompt["level"]) for prompt in frozen] == [
        ("easy.1", "easy", "easy"),
        ("both.1", "both", "sums"),
        ("both.2", "both", "both"),
    ]
    rejects = [(reject["id"], reject["reason"]) for reject in read_records(tmp_path / "prompts/rejects.jsonl")]
    assert rejects == [
        ("both.3", "the question occurs before"),
        (record_id("What is 2 * 2?"), "the question is also an eval question"),
    ]
    check_edited(tasks.load("math", "Prompts"), "eval.parquet", "eval", "nowhere.parquet", frozen)

    one_set = Prompts.model_validate({"eval": {"file": easy}})
    freeze(tasks.load("math", "Prompts"), one_set, 0, tmp_path / "one")
    assert "set" not in next(read_records(tmp_path / "one/eval.parquet"))


@pytest.mark.long
def test_several_eval_sets_have_metrics_each(fork):
    config = tiny_config()
    config["prompts"]["eval"] = {
        "facts": {"count": {"one_digit": 6}},
        "products": {"count": {"two_digit_product": 2}},
    }
    fork.configure(config)
    fork.snakemake("runs/arithmetic/evaluation/r0.json")
    metrics = read_json(fork.path("evaluation/r0.json"))

    assert metrics["n"] == 8
    assert {name: values["n"] for name, values in metrics["by_set"].items()} == {"facts": 6, "products": 2}
    assert metrics["by_set"]["facts"]["by_level"]["one_digit"]["accuracy"] == metrics["by_set"]["facts"]["accuracy"]
    pooled = (6 * metrics["by_set"]["facts"]["accuracy"] + 2 * metrics["by_set"]["products"]["accuracy"]) / 8
    assert metrics["accuracy"] == pytest.approx(pooled)
    assert "products" in fork.run("workflow_scripts.report", "--run", "runs/arithmetic")
