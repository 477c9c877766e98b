"""Supervised data in the usual shapes, read into training rows."""

import datasets
import pytest

from tests.conversations import ASSISTANT_TURNS, TALK, labelled, rows_of, saved
from workflow_scripts.core import chat, formats
from workflow_scripts.core.errors import BadInput

QUESTION = TALK[1]["content"]
ANSWER = TALK[2]["content"]
SHAPES = {
    "messages": {"messages": TALK[1:3]},
    "response": {"prompt": QUESTION, "response": ANSWER},
    "completion": {"prompt": QUESTION, "completion": ANSWER},
    "turns": {"prompt": TALK[1:2], "completion": TALK[2:3]},
    "question": {"question": QUESTION, "response": ANSWER},
    "alpaca": {"instruction": QUESTION, "input": "", "output": ANSWER},
}


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("shape", list(SHAPES))
def test_all_shapes_give_the_same_row(tokenizers, tmp_path, shape, suffix):
    tokenizer = tokenizers["chatml"]
    [row] = rows_of(saved(tmp_path / f"a{suffix}", [SHAPES[shape]]), "sft", tokenizer, template="chat")

    assert labelled(tokenizer, row) == ASSISTANT_TURNS[:1]
    expected = chat.encode_turns(tokenizer, "chat", TALK[1:3], 1)
    expected |= {"uid": row["uid"], "question": QUESTION, "policy": "foreign", "advantage": 1.0}
    assert row == expected


def test_an_answer_that_is_json_is_an_answer(tokenizers, tmp_path):
    text = '[{"name": "Anna", "role": "guest"}]'
    [row] = rows_of(saved(tmp_path / "a.jsonl", [{"prompt": "Who?", "response": text}]), "sft", tokenizers["plain"])

    assert row["answer"].strip() == text


def test_alpacas_input_follows_its_instruction(tokenizers, tmp_path):
    path = saved(tmp_path / "a.jsonl", [{"instruction": "Add.", "input": "2, 2", "output": "4"}])

    [row] = rows_of(path, "sft", tokenizers["plain"], template="alpaca")
    assert row["prompt_text"].endswith("### Instruction:\nAdd.\n\n### Input:\n2, 2\n\n### Response:")

    [row] = rows_of(path, "sft", tokenizers["plain"])
    assert row["prompt_text"] == "User:Add.\n\n2, 2\n\nAssistant:"


def test_folders_that_datasets_saved_are_read(tokenizers, tmp_path):
    data = datasets.Dataset.from_list([SHAPES["messages"], SHAPES["messages"]])
    data.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": data, "test": data.select([0])}).save_to_disk(tmp_path / "two")
    (tmp_path / "three").mkdir()
    data.to_parquet(tmp_path / "three/train.parquet")
    tokenizer = tokenizers["plain"]

    for folder in ("one", "two", "three"):
        assert len(rows_of(tmp_path / folder, "sft", tokenizer)) == 2
    assert len(rows_of(tmp_path / "two", "sft", tokenizer, split="test")) == 1
    with pytest.raises(BadInput, match=r"two: there is no split 'eval'; splits are train, test"):
        rows_of(tmp_path / "two", "sft", tokenizer, split="eval")


def test_records_without_ids_have_one_that_follows_from_their_texts(tokenizers, tmp_path):
    shapes = [SHAPES["response"], SHAPES["question"], SHAPES["response"]]
    first = rows_of(saved(tmp_path / "a.jsonl", shapes[::2]), "sft", tokenizers["plain"])
    again = rows_of(saved(tmp_path / "b.jsonl", shapes[1:2]), "sft", tokenizers["plain"])

    assert [row["uid"] for row in first] == [again[0]["uid"], f"{again[0]['uid']}.1"]


def test_an_error_of_the_template_names_the_record(tokenizers, tmp_path):
    talk = [m | {"content": "Hm.</think>" + m["content"]} if m["role"] == "assistant" else m for m in TALK]
    path = saved(tmp_path / "a.jsonl", [{"id": "one", "messages": TALK[:3]}, {"id": "two", "messages": talk}])

    with pytest.raises(BadInput, match=r"a\.jsonl, row 2, id two: the template 'chat'"):
        rows_of(path, "sft", tokenizers["forgetful"], template="chat")


def test_a_tokenizer_from_scratch_learns_from_conversations(tmp_path):
    path = saved(tmp_path / "a.jsonl", [{"messages": TALK[1:]}, {"messages": "none"}, {"messages": TALK[1:3]}])

    long, short = formats.sft_texts({"file": path}, "deepseek")

    assert short == "User:Grüße, 你好 🙂?\n\nAssistant:\n你好 🙂 "
    assert long.startswith(short)


def test_input_and_output_are_prompt_and_answer(tokenizers, tmp_path):
    [row] = rows_of(saved(tmp_path / "a.jsonl", [{"input": "2+2?", "output": "4"}]), "sft", tokenizers["plain"])
    assert (row["question"], row["answer"]) == ("2+2?", "4")
