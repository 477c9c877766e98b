"""Rewarded answers in CodeRL's format, read into training rows; and faults of records and files in any format."""

import pytest

from tests.conversations import labelled, read, rewarded_record, rows_of, saved
from workflow_scripts.core.errors import BadInput
from workflow_scripts.tasks.math.conversation import segments


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_rewarded_answers_are_kept_as_they_are(tokenizers, tmp_path, suffix):
    tokenizer = tokenizers["chatml"]
    path = saved(tmp_path / f"a{suffix}", [rewarded_record(response="python: nothing\n")])
    [row] = rows_of(path, "rewarded", tokenizer, template="chat")

    assert row["prompt_text"] == "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n```python\n"
    assert labelled(tokenizer, row) == ["python: nothing\n<|im_end|>"]
    assert (row["uid"], row["reward"], row["policy"], row["question"]) == ("a", 1.0, "foreign", "2+2?")


def test_what_the_environment_wrote_into_an_answer_is_masked(tokenizers, tmp_path):
    text = "```python\nprint(4)\n```\n```output\n4\n```\nThe answer is 4."
    path = saved(tmp_path / "a.jsonl", [rewarded_record(response=text)])
    [row] = rows_of(path, "rewarded", tokenizers["plain"], segments=segments)

    assert labelled(tokenizers["plain"], row) == [text.split("\n4\n")[0], "The answer is 4.<eos>"]


def test_keys_can_be_named_and_qid_with_sample_id_stands_in_for_uid(tokenizers, tmp_path):
    record = {"qid": "q", "sample_id": 3, "ask": "2+2?", "mark": 0.25, "say": "4"}
    keys = {"prompt_key": "ask", "reward_key": "mark", "response_key": "say"}
    [row] = rows_of(saved(tmp_path / "a.jsonl", [record]), "rewarded", tokenizers["plain"], **keys)

    assert (row["uid"], row["prompt_text"], row["reward"]) == ("q-3", "User:2+2?\n\nAssistant:", 0.25)


# ---------------------------------------------------------------- faults

NO_ANSWER_YET = '[{"role": "assistant", "content": "a"}]'


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"accuracy": None}, "the reward accuracy should be a finite number, found None"),
        ({"accuracy": "good"}, "the reward accuracy should be a finite number, found 'good'"),
        ({"accuracy": float("nan")}, "the reward accuracy should be a finite number, found nan"),
        ({"accuracy": float("inf")}, "the reward accuracy should be a finite number, found inf"),
        ({"unprocessed_response": " \n"}, "the response is empty"),
        ({"unprocessed_response": None}, "unprocessed_response should be text, found None"),
        ({"prompt_pretokenized": "[{"}, "prompt_pretokenized is not JSON"),
        ({"prompt_pretokenized": "[]"}, "prompt_pretokenized should be a list of messages, found []"),
        ({"prompt_pretokenized": '[{"role": "user"}]'}, "prompt_pretokenized, message 1: role and content"),
        ({"prompt_pretokenized": NO_ANSWER_YET}, "there is no question before the first answer"),
        ({"uid": None}, "no uid"),
        ({"uid": float("nan")}, "no uid"),
    ],
)
def test_a_record_that_cannot_be_used_is_a_reject_with_its_reason(tokenizers, tmp_path, change, reason):
    records = [rewarded_record(uid="x"), rewarded_record(uid="y") | change, rewarded_record(uid="z")]
    rows, rejects = read(saved(tmp_path / "a.jsonl", records), "rewarded", tokenizers["plain"])

    assert [row["uid"] for row in rows] == ["x", "z"]
    assert [(reject["row"], reject["id"]) for reject in rejects] == [(2, None if "uid" in change else "y")]
    assert rejects[0]["reason"].startswith(reason)


def test_an_id_that_comes_twice_is_an_error(tokenizers, tmp_path):
    records = [rewarded_record(uid="x"), rewarded_record(uid="y"), rewarded_record(uid="x", reward="bad")]
    path = saved(tmp_path / "a.jsonl", records)

    with pytest.raises(BadInput, match=r"a\.jsonl, row 3, id x: this id occurs before"):
        rows_of(path, "rewarded", tokenizers["plain"])


WITHOUT_ANSWER = {"uid": "x", "accuracy": 1.0, "prompt_pretokenized": "[]"}
WITHOUT_ID = {key: value for key, value in rewarded_record().items() if key != "uid"}


@pytest.mark.parametrize(
    ("form", "record", "message"),
    [
        (
            "rewarded",
            WITHOUT_ANSWER,
            "needs 'unprocessed_response'; the keys of its first record are accuracy, prompt_pretokenized, uid",
        ),
        ("rewarded", WITHOUT_ID, "needs `uid`, or `qid` and "),
        (
            "sft",
            {"text": "a"},
            "needs `messages` or one of: prompt and response; .* record are text\\. The formats are – sft",
        ),
        (
            "preference",
            {"prompt": "a", "chosen": "b"},
            "needs 'rejected'; .* first record are chosen, prompt",
        ),
        ("preference", {"prompt": "a", "completion": "b"}, "needs .* They fit the format sft"),
    ],
)
def test_missing_columns_are_an_error_that_names_those_of_the_file(tokenizers, tmp_path, form, record, message):
    with pytest.raises(BadInput, match=rf"a\.jsonl: format {form} {message}"):
        rows_of(saved(tmp_path / "a.jsonl", [record]), form, tokenizers["plain"])
