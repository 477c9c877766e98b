"""Contaminated and duplicate prompts are left out, reported or refused, and an edit reruns only what it must."""

import json

import pytest

from tests.harness import NOTHING_TO_DO, REPOSITORY, edit_prompts, jobs, outputs, tiny_config
from workflow_scripts import tasks
from workflow_scripts.config.sections import Prompts
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json, write_jsonl
from workflow_scripts.core.identity import shard_of
from workflow_scripts.core.records import read_records
from workflow_scripts.freeze_prompts import freeze
from workflow_scripts.screen_prompts import check_edited, screen

GSM8K = [json.loads(line) for line in (REPOSITORY / "tests/data/gsm8k.jsonl").read_text().splitlines()]
EVAL = [record | {"id": f"e{i}"} for i, record in enumerate(GSM8K[:10])]
CLEAN = [record | {"id": f"t{i}"} for i, record in enumerate(GSM8K[10:30])]
NGRAMS = EVAL[0] | {"id": "contained", "question": f"Read this. {EVAL[0]['question']} Write one number."}
EQUAL = EVAL[1] | {"id": "equal", "question": EVAL[1]["question"].upper()}
NEAR = CLEAN[3] | {"id": "near", "question": CLEAN[3]["question"].replace(" the ", " a ", 1)}
UNWANTED = {
    "contained": "it contains much of an eval question",
    "equal": "its words are those of an eval question",
    "near": "it nearly equals an earlier question",
}
TARGETS = [f"runs/arithmetic/results/r1/auto/2_{rank}.pkl" for rank in range(2)]


def screened(folder, train=(*CLEAN, NGRAMS, EQUAL, NEAR), **screening):
    """Freeze and screen GSM8K's prompts, and return the settings."""
    write_jsonl(folder / "train.jsonl", train)
    write_jsonl(folder / "eval.jsonl", EVAL)
    sources = {split: {"file": str(folder / f"{split}.jsonl")} for split in ("train", "eval")}
    settings = Prompts.model_validate(sources | {"screening": screening})
    task = tasks.load("math", "Prompts")
    freeze(task, settings, 0, folder / "prompts")
    screen(task, settings, folder / "prompts")
    return settings


def ids(path) -> list[str]:
    return [record["id"] for record in read_records(path)]


def test_unwanted_prompts_are_left_out_with_their_reasons(tmp_path):
    screened(tmp_path)
    kept = ids(tmp_path / "prompts/train.parquet")
    rejects = {line["id"]: line for line in read_records(tmp_path / "prompts/rejects.jsonl")}

    assert kept == [record["id"] for record in CLEAN]
    assert {name: line["reason"] for name, line in rejects.items()} == UNWANTED
    assert rejects["near"]["resembles"]["id"] == "t3"
    assert rejects["equal"]["resembles"] == {"id": "e1", "question": EVAL[1]["question"], "share": 1.0}
    assert ids(tmp_path / "prompts/overlaps.jsonl") == ["contained", "equal", "near"]
    assert read_json(tmp_path / "prompts/train.json")["rows"] == len(CLEAN)


def test_a_warning_keeps_the_prompts(tmp_path, capsys):
    screened(tmp_path, contamination="warn", duplicates=None)

    assert len(ids(tmp_path / "prompts/train.parquet")) == len(CLEAN) + 3
    assert ids(tmp_path / "prompts/overlaps.jsonl") == ["contained", "equal"]
    assert ids(tmp_path / "prompts/rejects.jsonl") == []
    assert (
        "warning: 1 train prompts: it contains much of an eval question, such as contained" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("train", "screening", "message"),
    [
        ((*CLEAN, NGRAMS), {"contamination": "refuse"}, "it contains much of an eval question, such as contained"),
        ((*CLEAN, EVAL[2]), {"contamination": "refuse"}, "1 train prompts equal eval prompts, such as e2"),
        ((*CLEAN, NEAR), {"duplicates": "refuse"}, "it nearly equals an earlier question, such as near"),
        ((NGRAMS,), {}, "no train prompt is left"),
    ],
)
def test_what_the_settings_refuse_stops_the_stage(tmp_path, train, screening, message):
    with pytest.raises(BadInput, match=message):
        screened(tmp_path, train, **screening)


def test_clean_prompts_are_not_refused(tmp_path):
    screened(tmp_path, CLEAN, contamination="refuse", duplicates="refuse")
    assert ids(tmp_path / "prompts/overlaps.jsonl") == []


def test_prompts_edited_by_hand_are_screened_too(tmp_path):
    settings = screened(tmp_path, CLEAN)
    path = tmp_path / "prompts/train.parquet"
    arguments = (tasks.load("math", "Prompts"), settings, str(path), str(tmp_path / "prompts/eval.parquet"))
    prompts = list(read_records(path))
    prompts[4]["question"] = NGRAMS["question"]

    check_edited(*arguments, prompts)  # the file is as it was frozen, so it has been screened
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(BadInput, match=r"train.parquet, id t4: it contains much of an eval question \(id e0"):
        check_edited(*arguments, prompts)


def test_a_run_with_eval_questions_only_has_nothing_to_screen(tmp_path):
    write_jsonl(tmp_path / "eval.jsonl", EVAL)
    settings = Prompts.model_validate({"eval": {"file": str(tmp_path / "eval.jsonl")}})
    task = tasks.load("math", "Prompts")
    freeze(task, settings, 0, tmp_path / "prompts")
    screen(task, settings, tmp_path / "prompts")
    assert not (tmp_path / "prompts/overlaps.jsonl").exists()


# ---------------------------------------------------------------- in the workflow


def configured(fork, screening: dict | None) -> None:
    config = tiny_config()
    config["prompts"] = {split: {"file": f"{split}.jsonl"} for split in ("train", "eval")}
    fork.configure(
        config | {"prompts": config["prompts"] | ({"screening": screening} if screening is not None else {})}
    )


@pytest.mark.long
def test_an_edit_reruns_one_shard_and_a_screening_that_changes_nothing_reruns_nothing(fork):
    write_jsonl(fork.folder / "eval.jsonl", EVAL)
    write_jsonl(fork.folder / "train.jsonl", CLEAN)
    configured(fork, None)
    fork.snakemake(*TARGETS)

    configured(fork, {})
    assert NOTHING_TO_DO in fork.snakemake("-n", *TARGETS)

    edited = CLEAN[7] | {"question": "A farmer has 7 cows and buys 9 more of them. How many cows are there now?"}
    write_jsonl(fork.folder / "train.jsonl", [*CLEAN[:7], edited, *CLEAN[8:], NGRAMS])
    output = fork.snakemake("-n", *TARGETS)
    assert outputs(output, "generate") == [TARGETS[shard_of("t7", 2)]]
    assert "1 train prompts: it contains much of an eval question" in output

    configured(fork, {"contamination": "refuse"})
    output = fork.snakemake("-n", *TARGETS, fails=True)
    assert "prompts.screening: 1 train prompts: it contains much of an eval question" in output

    configured(fork, {})  # what was refused is not in use
    fork.snakemake(*TARGETS)
    assert "contained" not in ids(fork.path("prompts/train.parquet"))
    assert NOTHING_TO_DO in fork.snakemake("-n", *TARGETS)


def test_a_job_screens_prompts_that_are_made_up(fork):
    config = tiny_config()
    config["prompts"]["screening"] = {"contamination": "warn", "duplicates": "warn", "similarity": 0.95}
    fork.configure(config)
    fork.snakemake("runs/arithmetic/prompts/train.parquet")

    assert fork.path("prompts/overlaps.jsonl").exists()
    assert "freeze_prompts" not in jobs(fork.snakemake("-n", *TARGETS))
    edit_prompts(fork, lambda frame: frame.assign(question=[frame["question"][1].upper(), *frame["question"][1:]]))
    assert "it nearly equals an earlier question" in fork.snakemake("-n", *TARGETS)
