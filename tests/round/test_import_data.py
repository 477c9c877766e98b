"""The stages that read existing training data: import_data, construct_sft, and export_rewarded on the way there."""

import json
import sys

import pytest

from tests.conversations import ASSISTANT_TURNS, TALK, labelled, rewarded_record, saved
from workflow_scripts import construct_sft, import_data
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json, write_parquet
from workflow_scripts.core.pickles import read_pickle, write_pickle
from workflow_scripts.core.records import read_records
from workflow_scripts.core.templates import render
from workflow_scripts.tasks.code import export_rewarded


@pytest.fixture(scope="module")
def checkpoint(tokenizers, tmp_path_factory):
    """Return a checkpoint that has a tokenizer and no weights."""
    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizers["chatml"].save_pretrained(folder / "model")
    (folder / "model/config.json").write_text('{"model_type": "llama"}')
    (folder / "checkpoint.json").write_text('{"digest": "d"}')
    return folder / "checkpoint.json"


@pytest.fixture
def run_stage(checkpoint, tmp_path, monkeypatch):
    """Return a function that runs a stage with these settings, and with the output out.pkl."""

    def run(module, settings: dict, **more: str) -> None:
        options = {
            "task": "math",
            "settings": json.dumps(settings),
            "template": "chat",
            "model": str(checkpoint),
            "output": str(tmp_path / "out.pkl"),
        } | more
        monkeypatch.setattr(sys, "argv", ["stage", *(part for key in options for part in (f"--{key}", options[key]))])
        module.main()

    return run


def test_import_data_writes_rows_manifest_and_rejects(run_stage, checkpoint, tmp_path, capsys):
    rewards = {"a": (1.0, 0.0, 0.5), "b": (0.5, 0.5), "c": (2.0, "bad")}
    records = []
    for name, group in rewards.items():
        for i, reward in enumerate(group):
            records.append(rewarded_record(uid=f"{name}{i}", question=name, reward=reward))
    path = saved(tmp_path / "a.jsonl", records)

    run_stage(import_data, {"advantage": "group", "source": {"file": path, "format": "rewarded"}})

    printed = capsys.readouterr()
    assert printed.out == "out.pkl: 3 rows, 1 rejects, 3 dropped\n"
    assert "2 of 3 groups have no variance and are dropped" in printed.err

    rows = read_pickle(tmp_path / "out.pkl")
    assert [(row["uid"], row["advantage"]) for row in rows] == [("a0", 0.5), ("a1", -0.5), ("a2", 0.0)]
    manifest = read_json(tmp_path / "out.json")
    assert manifest["inputs"].keys() == {str(checkpoint), path}
    assert (manifest["rows"], manifest["rejects"]) == (3, 1)
    assert manifest["dropped"] == {"answer in a group without variance": 3}
    assert [(reject["row"], reject["id"]) for reject in read_records(tmp_path / "out.rejects.jsonl")] == [(7, "c1")]


def test_posonly_keeps_rewards_above_the_threshold_once_all_are_compared(run_stage, tmp_path):
    records = [rewarded_record(uid=str(reward), reward=reward) for reward in (0.0, 0.75, 0.76, 1.0)]
    source = {"file": saved(tmp_path / "a.jsonl", records), "format": "rewarded"}

    run_stage(import_data, {"source": source, "data_filter": "posonly", "advantage": "group"})

    rows = read_pickle(tmp_path / "out.pkl")
    assert [(row["uid"], round(row["advantage"], 4)) for row in rows] == [("0.76", 0.1325), ("1.0", 0.3725)]
    assert read_json(tmp_path / "out.json")["dropped"] == {"reward of 0.75 or less": 2}


@pytest.mark.parametrize(
    ("source", "settings", "message"),
    [
        ({}, {}, r"must lie in \[0, 1\], found -1.5"),
        (
            {},
            {"data_filter": "posonly", "advantage": "raw"},
            "nothing is left to train on; left out: 1 × reward of 0.75 or less",
        ),
        ({"file": "empty.jsonl"}, {}, r"empty\.jsonl: has no records"),
        ({"file": "./none"}, {}, r"there is no file \./none"),
        ({"file": "none.jsonl"}, {}, r"there is no file none\.jsonl"),
    ],
)
def test_import_data_stops_where_no_row_can_be_made(run_stage, tmp_path, monkeypatch, source, settings, message):
    path = saved(tmp_path / "a.jsonl", [rewarded_record(reward=-1.5)])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.jsonl").touch()

    with pytest.raises(BadInput, match=message):
        run_stage(import_data, settings | {"source": {"file": path, "format": "rewarded"} | source})

    assert not (tmp_path / "out.pkl").exists()


def test_a_cold_start_reads_conversations(run_stage, tokenizers, tmp_path):
    path = saved(tmp_path / "a.jsonl", [{"messages": TALK}, {"messages": TALK[:2]}])

    run_stage(construct_sft, {"file": path})

    [row] = read_pickle(tmp_path / "out.pkl")
    assert labelled(tokenizers["chatml"], row) == ASSISTANT_TURNS
    rejects = read_records(tmp_path / "out.rejects.jsonl")
    assert [reject["reason"] for reject in rejects] == ["no message by the assistant"]


def test_a_cold_start_reads_questions_with_solutions(run_stage, tmp_path):
    record = {"question": "2+2?", "solution": "4", "prompt": "p", "response": "r"}

    run_stage(construct_sft, {"file": saved(tmp_path / "a.jsonl", [record])})

    [row] = read_pickle(tmp_path / "out.pkl")
    assert (row["uid"], row["answer"]) == ("sft.0", "4")


def test_graded_answers_of_a_run_come_back_as_rewarded_ones(run_stage, tokenizers, tmp_path, monkeypatch, capsys):
    program = "```python\nprint(2 + 2)\n```\n```output\n4\n```\n"
    answers = [
        ("a", program, 1.0, "eos"),
        ("a", "It is 5.", 0.0, "eos"),
        ("a", "It is", 0.0, "length"),
        ("b", "It is 6.", 1.0, "eos"),
    ]
    results = []
    for i, (question, text, reward, finish) in enumerate(answers):
        record = {"uid": f"{question}.{i}", "question": question, "answer": text, "reward": reward, "finish": finish}
        results.append(record)
    write_pickle(tmp_path / "1_0_matchlog.pkl", results)

    options = ["--results", str(tmp_path / "1_0_matchlog.pkl"), "--output", str(tmp_path / "a.parquet")]
    monkeypatch.setattr(sys, "argv", ["export_rewarded", *options])
    export_rewarded.main()
    assert "3 answers, 2 of them right; 1 cut off or empty" in capsys.readouterr().out
    assert [row["normalized_reward"] for row in read_records(tmp_path / "a.parquet")] == [1, -1, 0]

    source = {"file": str(tmp_path / "a.parquet"), "format": "rewarded", "reward_key": "normalized_reward"}
    run_stage(import_data, {"source": source, "advantage": "raw"})
    rows = read_pickle(tmp_path / "out.pkl")
    assert [(row["uid"], row["advantage"]) for row in rows] == [("a.0", 1), ("a.1", -1), ("b.3", 0)]
    assert rows[0]["prompt_text"] == render("chat", "a", tokenizers["chatml"])
    assert labelled(tokenizers["chatml"], rows[0]) == [program.split("\n4\n")[0], "<|im_end|>"]


# ---------------------------------------------------------------- rows that resemble eval prompts

EVAL_QUESTION = "A farmer has seven brown cows and buys nine more of them in May. How many cows are there now?"
CLEAN = ("How much is 3 + 4?", "What is the capital of France, and on which river does it lie?")


@pytest.fixture
def eval_prompts(tmp_path):
    path = tmp_path / "eval.parquet"
    questions = (EVAL_QUESTION, "How much is 2 + 2?")
    write_parquet(path, [{"id": f"e{i}", "question": text, "level": "eval"} for i, text in enumerate(questions)])
    return str(path)


def contaminated(question):
    """Return the records of one question in the formats sft, preference and rewarded, by their format."""
    return {
        "sft": {"prompt": question, "response": "I know it."},
        "preference": {"prompt": question, "chosen": "Yes, 16.", "rejected": "No."},
        "rewarded": rewarded_record(uid=question, question=question, reward=1.0),
    }


@pytest.mark.parametrize("form", ["sft", "preference", "rewarded"])
def test_rows_that_resemble_eval_prompts_are_left_out(run_stage, tmp_path, eval_prompts, form, capsys):
    leaks = (f"Think first. {EVAL_QUESTION} Be brief.", "how much is 2 + 2")  # by n-grams, and by equal words
    path = saved(tmp_path / "a.jsonl", [contaminated(question)[form] for question in (*CLEAN, *leaks)])
    source = {"source": {"file": path, "format": form}, "advantage": "raw"}

    run_stage(import_data, source, screening="{}", **{"eval-prompts": eval_prompts})

    rows = read_pickle(tmp_path / "out.pkl")
    assert {row["question"] for row in rows} == set(CLEAN)
    rejects = list(read_records(tmp_path / "out.rejects.jsonl"))
    each = 2 if form == "preference" else 1
    assert [reject["resembles"]["id"] for reject in rejects] == ["e0"] * each + ["e1"] * each
    assert rejects[0]["reason"] == "it contains much of an eval question"
    assert rejects[-1]["reason"] == "its words are those of an eval question"
    assert eval_prompts in read_json(tmp_path / "out.json")["inputs"]

    run_stage(import_data, source, screening='{"contamination": "warn"}', **{"eval-prompts": eval_prompts})
    assert len(read_pickle(tmp_path / "out.pkl")) == 4 * each
    assert f"{2 * each} of {4 * each} rows resemble eval prompts" in capsys.readouterr().err

    with pytest.raises(BadInput, match=r"rows resemble eval prompts, such as .*Take them out"):
        run_stage(import_data, source, screening='{"contamination": "refuse"}', **{"eval-prompts": eval_prompts})


def test_worked_examples_that_resemble_eval_prompts_are_left_out(run_stage, tmp_path, eval_prompts):
    questions = (*CLEAN, EVAL_QUESTION, "HOW MUCH IS 2+2?")
    records = [{"question": text, "solution": f"It is {i}."} for i, text in enumerate(questions)]
    path = saved(tmp_path / "a.jsonl", records)

    run_stage(construct_sft, {"file": path}, screening="{}", **{"eval-prompts": eval_prompts})

    assert [row["question"] for row in read_pickle(tmp_path / "out.pkl")] == list(CLEAN)
    rejects = list(read_records(tmp_path / "out.rejects.jsonl"))
    assert [reject["question"] for reject in rejects] == list(questions[2:])
    assert read_json(tmp_path / "out.json")["rejects"] == 2


def test_a_later_question_of_a_conversation_is_screened(run_stage, tmp_path, eval_prompts):
    turns = ["Hello.", "Hello, ask me.", EVAL_QUESTION, "There are 16."]
    messages = [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 2, turns)]
    records = [{"messages": messages}, {"messages": messages[:2]}]
    source = {"source": {"file": saved(tmp_path / "a.jsonl", records), "format": "sft"}}

    run_stage(import_data, source, screening="{}", **{"eval-prompts": eval_prompts})
    assert len(read_pickle(tmp_path / "out.pkl")) == 1
