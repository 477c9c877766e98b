"""Rounds that answer a part of the prompts each, and stages with numbers of shards of their own."""

import json
import shutil

import pandas as pd
import pytest

from tests.harness import NOTHING_TO_DO, Copy, edit_prompts, in_ledger, jobs, outputs, tiny_config
from workflow_scripts.core.identity import shard_of
from workflow_scripts.core.pickles import read_pickle
from workflow_scripts.core.slices import Slicing, slice_of

SIZE = 9  # of 24 prompts: the third round goes on in the second pass


def sliced_config(**changes) -> dict:
    return tiny_config(prompts_per_round=SIZE, rounds=2, shards={"auto": 2, "trigger": 1, "eval": 1}) | changes


@pytest.fixture(scope="module")
def sliced(finished, tmp_path_factory) -> Copy:
    """Return two finished rounds of 9 prompts each."""
    folder = tmp_path_factory.mktemp("sliced") / "run"
    shutil.copytree(finished.folder, folder, symlinks=True)
    copy = Copy.at(folder)
    copy.configure(sliced_config())
    output = copy.snakemake()
    (folder / "output.txt").write_text(output)
    return copy


@pytest.fixture
def fork_of_sliced(sliced, tmp_path) -> Copy:
    shutil.copytree(sliced.folder, tmp_path / "fork", symlinks=True)
    return Copy.at(tmp_path / "fork")


def prompt_ids(copy: Copy) -> list[str]:
    return list(pd.read_parquet(copy.path("prompts/train.parquet"))["id"])


def test_each_round_answers_its_own_prompts_in_both_versions(sliced):
    ids = prompt_ids(sliced)

    for n in (1, 2):
        expected = slice_of(ids, Slicing(SIZE, 0), n)
        assert len(expected) == SIZE
        for version, shards in (("auto", ("2_0", "2_1")), ("trigger", ("1_0",))):
            answered = set()
            for shard in shards:
                graded = read_pickle(sliced.path(f"results/r{n}/{version}/{shard}_matchlog.pkl"))
                answered |= {answer["id"] for answer in graded}
            assert answered == expected

    evaluated = read_pickle(sliced.path("evaluation/r2/1_0.pkl"))
    assert len(evaluated) == len(pd.read_parquet(sliced.path("prompts/eval.parquet")))
    manifest = json.loads(sliced.path("results/r2/auto/2_0.json").read_text())
    assert manifest["settings"]["slice"] == {"round": 2, "size": SIZE, "seed": 0}


def test_what_is_told_of_the_slices(sliced):
    output = (sliced.folder / "output.txt").read_text()
    assert "prompts_per_round: each round answers 9 of 24 prompts; 3 rounds answer all" in output
    assert (
        "round 2: 9 of 24 prompts; 3 rounds answer all of them" in sliced.path("logs/slice_prompts/r2.log").read_text()
    )

    table = pd.read_csv(sliced.path("report/rounds.csv"))
    assert list(table["passes"]) == [0.0, 0.38, 0.75]
    assert NOTHING_TO_DO in sliced.snakemake("-n")
    assert "round 2: sound" in sliced.snakemake("verify")


def test_an_edited_prompt_reruns_the_rounds_that_answer_it(fork_of_sliced):
    copy = fork_of_sliced
    ids = prompt_ids(copy)
    first, second = (slice_of(ids, Slicing(SIZE, 0), n) for n in (1, 2))
    edited = next(prompt for prompt in ids if prompt in second)
    shard = shard_of(edited, 2)
    elsewhere = next(prompt for prompt in ids if prompt not in first | second)

    def edit(prompt: str):
        edit_prompts(
            copy, lambda frame: frame.assign(question=frame["question"].where(frame["id"] != prompt, "8 + 9?"))
        )

    before = copy.path("prompts/train.parquet").read_bytes()
    edit(elsewhere)
    assert NOTHING_TO_DO in copy.snakemake("-n")
    copy.path("prompts/train.parquet").write_bytes(before)

    edit(edited)
    output = copy.snakemake("-n")
    assert sorted(outputs(output, "generate")) == [
        f"runs/arithmetic/results/r2/auto/2_{shard}.pkl",
        "runs/arithmetic/results/r2/trigger/1_0.pkl",
    ]
    assert not {"slice_prompts", "freeze_prompts"} & jobs(output)

    verified = copy.snakemake("verify", fails=True)
    assert "round 1: sound" in verified
    assert "round 2: stale" in verified

    copy.snakemake("runs/arithmetic/results/r2/trigger/1_0.pkl")
    done, total = in_ledger(copy.path("logs/generate/r2_trigger_1_0.log").read_text())
    assert total - done == 4  # one prompt, two triggers, two samples


def test_a_removed_prompt_leaves_the_rounds_before_its_place_alone(fork_of_sliced):
    ids = prompt_ids(fork_of_sliced)
    removed = next(iter(slice_of(ids, Slicing(SIZE, 0), 2)))
    edit_prompts(fork_of_sliced, lambda frame: frame[frame["id"] != removed])

    assert {path.split("/")[3] for path in outputs(fork_of_sliced.snakemake("-n"), "generate")} == {"r2"}


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
