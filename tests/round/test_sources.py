"""Rounds on answers and rows that exist as files, and the log-probs that objectives need."""

import json

import pytest

from tests.harness import NOTHING_TO_DO, Copy, jobs, outputs, scored, tiny_config
from workflow_scripts.core.files import read_json
from workflow_scripts.core.pickles import read_pickle, write_pickle

CHECKPOINT = "runs/arithmetic/checkpoints/r1/checkpoint.json"

# ---------------------------------------------------------------- answers from files


def autocode_record(i: int) -> dict:
    """Return a graded result in AutoCode's own format: by code or by reasoning, right two times of three."""
    question = f"Tom has {i} eggs and finds {i + 1} more. How many are there?"
    right = i % 3 > 0
    total = 2 * i + 1

    if i % 2:
        text = f"```python\nprint({i} + {i + 1})\n```\n```output\n{total}\n```\nThere are $\\boxed{{{total}}}$ eggs."
    else:
        text = f"So he has {2 * i + right} eggs.\nThe answer is $\\boxed{{{2 * i + right}}}$."

    return {
        "question": question,
        "solution": text,
        "correct": str(total),
        "req": f"User:{question}\n\nAssistant:",
        "match": [{"pred": [""], "res": right}],
        "task": "eggs",
    }


@pytest.fixture
def imported(tmp_path, fork):
    """Return a file of AutoCode's graded results, which the fork takes for its answers of round 1."""
    path = tmp_path / "results.pkl"
    write_pickle(path, [autocode_record(i) for i in range(30)])
    fork.configure(tiny_config(results={1: {"auto": [str(path)]}}))
    return path


@pytest.mark.long
def test_a_round_can_start_from_the_originals_pickles(fork, imported):
    output = fork.snakemake(CHECKPOINT)

    assert "no trigger meta: the selection uses auto answers only" in output
    assert "rows were not sampled by this policy: their ratio is 1" in output
    checkpoint = read_json(fork.path("checkpoints/r1/checkpoint.json"))
    assert checkpoint["foreign"] == checkpoint["rows"] > 10
    rows = read_pickle(fork.path("data/offline_small_r1_arithmetic.pkl"))
    assert {row["policy"] for row in rows} == {"foreign"}
    assert any(0 in row["mask"] for row in rows)


def test_an_empty_selection_says_what_to_do(fork, imported):
    write_pickle(imported, [record | {"correct": "-1"} for record in read_pickle(imported)])
    output = fork.snakemake(CHECKPOINT, fails=True)

    assert "error: nothing is left to train on: 30 questions" in output
    assert "Ask easier questions" in output


def test_a_pickle_with_code_in_it_is_refused(fork, imported):
    imported.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    output = fork.snakemake("runs/arithmetic/results/r1/auto/2_0.pkl", fails=True)

    assert f"error: {imported}: refers to os.system" in output


def test_a_record_that_lacks_a_field_is_named(fork, imported):
    records = read_pickle(imported)
    del records[3]["correct"]
    write_pickle(imported, records)
    output = fork.snakemake("runs/arithmetic/results/r1/auto/2_0.pkl", fails=True)

    assert f"error: {imported}, record 3: lacks reference" in output


# ---------------------------------------------------------------- log-probs


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ({"objective": "sft"}, set()),
        ({"objective": "topr"}, {"r1_arithmetic_logp", "r2_arithmetic_logp"}),
        ({"kl": 0.1}, {"r1_arithmetic_logp", "r2_arithmetic_logp", "r2_arithmetic_ref_logp"}),
        ({"kl": 0.1, "reference": "previous"}, {"r1_arithmetic_logp", "r2_arithmetic_logp"}),
    ],
    ids=["none", "behaviour", "round_0", "previous"],
)
def test_objectives_ask_for_the_log_probs_they_need_and_no_others(tmp_path, train, expected):
    config = tiny_config()
    copy = Copy(tmp_path / "needs", config | {"train": config["train"] | train})

    folders = scored(copy.snakemake("-n", "round2_checkpoint"))
    assert folders == {f"offline_small_{name}" for name in expected}


# ---------------------------------------------------------------- rows from files


def rows_config(file: str, form: str, **train) -> dict:
    """Return the tiny config with existing rows in place of the rounds' own answers."""
    config = tiny_config(name="rows", data={"tag": "x", "source": {"file": file, "format": form}})
    config["prompts"] = {"eval": {"count": {"one_digit": 4}}}
    config["shards"] = 1
    config["train"] |= train
    return config


def test_existing_rows_are_linked_into_the_run_and_imported_once(tmp_path):
    copy = Copy(tmp_path / "rows", rows_config("rows.jsonl", "sft", objective="sft"))
    (copy.folder / "rows.jsonl").write_text('{"prompt": "2+2?", "response": "4"}\n')
    output = copy.snakemake("-n", "round3_checkpoint")

    assert {"link_data", "import_data", "train"} <= jobs(output)
    assert not {"generate", "construct_meta", "construct_data", "logp"} & jobs(output)
    assert outputs(output, "import_data") == ["runs/rows/data/rows.jsonl_x.pkl"]


@pytest.mark.slow
def test_a_run_on_existing_rows_may_have_no_eval_questions(tmp_path):
    config = rows_config("rows.jsonl", "sft", objective="sft") | {"prompts": {}}
    config["cold_start"]["count"] = {"one_digit": {"direct": 4, "code": 4}}
    config["rounds"] = 1
    copy = Copy(tmp_path / "rows", config)
    (copy.folder / "rows.jsonl").write_text('{"prompt": "2+2?", "response": "4"}\n')

    assert not {"freeze_prompts", "generate_eval", "evaluate", "report"} & jobs(copy.snakemake("-n"))
    copy.snakemake("all")
    assert not (copy.folder / "runs/rows/evaluation").exists()
    assert "not sound" not in copy.snakemake("verify")
    assert "report: the config has no eval questions" in copy.snakemake("report", fails=True)


@pytest.mark.slow
def test_preference_pairs_train_rounds_of_dpo(finished, tmp_path):
    pairs = []
    for a in range(2, 8):
        for b in range(3, 6):
            chosen, rejected = f" The answer is {a + b}.", f" It is {a * b}, no, 0."
            pairs.append({"prompt": f"What is {a} + {b}.", "chosen": chosen, "rejected": rejected})

    config = rows_config("pairs.jsonl", "preference")
    config["model"] = {"path": str(finished.path("checkpoints/r0/model"))}
    config["train"] = {"objective": "dpo", "lr": 1e-4, "batch_size": 6, "threads": 1}
    del config["cold_start"]
    copy = Copy(tmp_path / "pairs", config)
    source = copy.folder / "pairs.jsonl"
    source.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))

    assert scored(copy.snakemake("-n", "round2_checkpoint")) == {"pairs.jsonl_x_scaleonly_r0_logp"}
    copy.snakemake("round2_checkpoint")
    run = copy.folder / "runs/rows"
    first, second = (read_json(run / f"checkpoints/r{n}/history.json") for n in (1, 2))
    assert first[0]["preferred"] == 0  # before the first update no pair has a margin
    assert first[-1]["margin"] > 0
    assert second[0]["margin"] > 0  # round 2 is compared with round 0 too
    assert second[-1]["preferred"] == 1
    assert (run / "data/pairs.jsonl").resolve() == source.resolve()

    assert NOTHING_TO_DO in copy.snakemake("-n", "round2_checkpoint")
    source.write_text("".join(json.dumps(pair) + "\n" for pair in pairs[1:]))
    assert {"import_data", "logp", "train"} <= jobs(copy.snakemake("-n", "round2_checkpoint"))
