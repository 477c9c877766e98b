"""Rounds that answer a part of the prompts each, and stages with numbers of shards of their own."""

import json
import shutil

import pandas as pd
import pytest

from tests.harness import NOTHING_TO_DO, Copy, edit_prompts, jobs, outputs, tiny_config
from workflow_scripts.core.identity import shard_of
from workflow_scripts.core.pickles import read_pickle
from workflow_scripts.core.slices import Slicing, slice_of
from workflow_scripts.report import passes_of

SIZE = 9  # of 24 prompts
ANSWERS = [f"runs/arithmetic/results/r1/{name}.pkl" for name in ("auto/2_0", "auto/2_1", "trigger/1_0")]
DIGESTS = [f"runs/arithmetic/prompts/shards/train/r2/{shard}.txt" for shard in ("2_0", "2_1", "1_0")]


@pytest.fixture(scope="module")
def sliced(finished, tmp_path_factory) -> Copy:
    """Return the answers of a round to 9 prompts, and the digests of the next 9."""
    folder = tmp_path_factory.mktemp("sliced") / "run"
    shutil.copytree(finished.folder, folder, symlinks=True)
    copy = Copy.at(folder)
    copy.configure(tiny_config(prompts_per_round=SIZE, rounds=2, shards={"auto": 2, "trigger": 1, "eval": 1}))
    (folder / "output.txt").write_text(copy.snakemake(*ANSWERS, *DIGESTS))
    return copy


@pytest.fixture
def fork_of_sliced(sliced, tmp_path) -> Copy:
    shutil.copytree(sliced.folder, tmp_path / "fork", symlinks=True)
    return Copy.at(tmp_path / "fork")


def prompt_ids(copy: Copy) -> list[str]:
    return list(pd.read_parquet(copy.path("prompts/train.parquet"))["id"])


def edit_question(copy: Copy, prompt: str) -> None:
    def change(frame):
        frame.loc[frame["id"] == prompt, "question"] = "What is 8 + 9?"
        return frame

    edit_prompts(copy, change)


def test_a_round_answers_its_own_prompts_in_both_versions(sliced):
    expected = slice_of(prompt_ids(sliced), Slicing(SIZE, 0), 1)
    assert len(expected) == SIZE

    for shards in (ANSWERS[:2], ANSWERS[2:]):
        answers = [answer for shard in shards for answer in read_pickle(sliced.folder / shard)]
        assert {answer["id"] for answer in answers} == expected

    manifest = json.loads(sliced.path("results/r1/auto/2_0.json").read_text())
    assert manifest["settings"]["slice"] == {"round": 1, "size": SIZE, "seed": 0}


def test_the_number_of_rounds_that_answer_all_prompts_is_told(sliced):
    output = (sliced.folder / "output.txt").read_text()
    assert "prompts_per_round: each round answers 9 of 24 prompts; 3 rounds answer all" in output
    log = sliced.path("logs/slice_prompts/r2.log").read_text()
    assert "round 2: 9 of 24 prompts; 3 rounds answer all of them" in log

    assert passes_of(sliced.path("")) == {0: 0.0, 1: 0.38}


def test_only_the_answers_of_rounds_are_sliced(sliced):
    output = sliced.snakemake("-n", "-p", "round2_checkpoint")
    commands = [line for line in output.splitlines() if "workflow_scripts.generate " in line]

    for command in commands:
        is_of_round = "--version auto" in command or "--version trigger" in command
        assert is_of_round == ("--slice" in command)
    assert any('"round": 2' in command for command in commands)
    assert any("--version eval" in command for command in commands)


def test_an_edited_prompt_reruns_the_rounds_that_answer_it(fork_of_sliced):
    copy = fork_of_sliced
    ids = prompt_ids(copy)
    first, second = (slice_of(ids, Slicing(SIZE, 0), n) for n in (1, 2))
    before = copy.path("prompts/train.parquet").read_bytes()
    digests = [(copy.folder / digest).read_text() for digest in DIGESTS]

    edit_question(copy, next(prompt for prompt in ids if prompt in second))
    assert NOTHING_TO_DO in copy.snakemake("-n", *ANSWERS, *DIGESTS)
    assert [(copy.folder / digest).read_text() for digest in DIGESTS] != digests

    copy.path("prompts/train.parquet").write_bytes(before)
    edited = next(prompt for prompt in ids if prompt in first)
    edit_question(copy, edited)
    output = copy.snakemake("-n", *ANSWERS, *DIGESTS)
    assert sorted(outputs(output, "generate")) == sorted([ANSWERS[shard_of(edited, 2)], ANSWERS[2]])
    assert not {"slice_prompts", "freeze_prompts"} & jobs(output)
    assert [(copy.folder / digest).read_text() for digest in DIGESTS] == digests


@pytest.mark.long
def test_prompts_from_a_file_are_watched_at_their_source(fork):
    lines = [json.dumps({"id": f"q{i}", "question": f"What is {i} + 1?", "answer": str(i + 1)}) for i in range(20)]
    source = fork.folder / "mine.jsonl"
    source.write_text("\n".join(lines))
    config = tiny_config(prompts_per_round=8)
    config["prompts"]["train"] = {"file": "mine.jsonl", "count": None}
    fork.configure(config)
    targets = [f"runs/arithmetic/results/r1/auto/2_{rank}.pkl" for rank in range(2)]
    fork.snakemake(*targets)

    chosen = slice_of([f"q{i}" for i in range(20)], Slicing(8, 0), 1)
    for number in (
        next(i for i in range(20) if f"q{i}" not in chosen),
        next(i for i in range(20) if f"q{i}" in chosen),
    ):
        edited = json.dumps({"id": f"q{number}", "question": f"What is {number} + 2?", "answer": str(number + 2)})
        source.write_text("\n".join([*lines[:number], edited, *lines[number + 1 :]]))
        output = fork.snakemake("-n", *targets)
        expected = [targets[shard_of(f"q{number}", 2)]] if f"q{number}" in chosen else []
        assert outputs(output, "generate") == expected


def test_other_numbers_of_eval_shards_rerun_the_evaluation_only(fork):
    fork.configure(tiny_config(shards={"auto": 2, "eval": 1}))
    output = fork.snakemake("-n", "round1_checkpoint")

    assert jobs(output) == {"generate_eval", "grade", "evaluate", "round1_checkpoint"}
    assert set(outputs(output, "generate_eval")) == {f"runs/arithmetic/evaluation/r{n}/1_0.pkl" for n in (0, 1)}


def test_other_numbers_of_logp_shards_rerun_the_log_probs_and_what_follows(fork):
    fork.configure(tiny_config(shards={"auto": 2, "logp": 3}))
    output = fork.snakemake("-n", "round1_checkpoint")

    assert {"logp", "train"} <= jobs(output)
    assert not {"generate", "construct_data", "freeze_prompts"} & jobs(output)
    assert len(outputs(output, "logp")) == 3


def test_some_rounds_only_are_evaluated(tmp_path):
    copy = Copy(tmp_path / "seldom", tiny_config(evaluate_every=5))
    output = copy.snakemake("-n", "round12_checkpoint")

    assert sorted(outputs(output, "evaluate")) == sorted(
        f"runs/arithmetic/evaluation/r{n}.json" for n in (0, 5, 10, 12)
    )


def test_a_chain_of_many_rounds_can_be_planned(tmp_path):
    copy = Copy(tmp_path / "many", tiny_config(shards=1, evaluate_every=50, prompts_per_round=4))
    assert len(outputs(copy.snakemake("-n", "round150_checkpoint"), "train")) == 150
