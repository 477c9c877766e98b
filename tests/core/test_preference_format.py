"""Preference pairs in the usual shapes, read into two training rows each."""

import pytest

from tests.conversations import ASSISTANT_TURNS, TALK, labelled, read, rows_of, saved
from workflow_scripts.core import chat

ASK = TALK[1]
GOOD = TALK[4]
BAD = {"role": "assistant", "content": "It is 5."}
SHAPES = {
    "text": {"prompt": ASK["content"], "chosen": GOOD["content"], "rejected": BAD["content"]},
    "TRL, messages": {"prompt": [ASK], "chosen": [GOOD], "rejected": [BAD]},
    "TRL, implicit prompt": {"chosen": [ASK, GOOD], "rejected": [ASK, BAD]},
    "OpenRLHF, prompt as text": {"prompt": ASK["content"], "chosen": [ASK, GOOD], "rejected": [ASK, BAD]},
    "answers as text": {"prompt": [ASK], "chosen": GOOD["content"], "rejected": BAD["content"]},
}


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("shape", list(SHAPES))
def test_all_shapes_give_the_same_two_rows(tokenizers, tmp_path, shape, suffix):
    path = saved(tmp_path / f"a{suffix}", [SHAPES[shape] | {"uid": 7}])
    rows = rows_of(path, "preference", tokenizers["chatml"], template="chat")

    expected = []
    for side, sign, answer in (("chosen", 1.0, GOOD), ("rejected", -1.0, BAD)):
        row = chat.encode_turns(tokenizers["chatml"], "chat", [ASK, answer], 1)
        row |= {"uid": f"7.{side}", "pair": "7", "policy": "foreign", "advantage": sign, "question": ASK["content"]}
        expected.append(row)
    assert rows == expected


def test_openrlhfs_keys_can_be_named(tokenizers, tmp_path):
    record = {"question": ASK["content"], "response_0": GOOD["content"], "reject": BAD["content"], "uid": "7"}
    keys = {"prompt_key": "question", "chosen_key": "response_0", "rejected_key": "reject"}
    named = rows_of(saved(tmp_path / "a.jsonl", [record]), "preference", tokenizers["plain"], **keys)

    path = saved(tmp_path / "b.jsonl", [SHAPES["text"] | {"uid": "7"}])
    assert len(named) == 2
    assert named == rows_of(path, "preference", tokenizers["plain"])


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt"),
    [
        ("The sky is blue.", "The sky is green.", "The sky is"),  # the example of TRL's manual
        ("The sky is blue.", "The sky is black.", "The sky is"),
        ("\n\nHuman: Hi\n\nAssistant: Hello", "\n\nHuman: Hi\n\nAssistant: Bye", "\n\nHuman: Hi\n\nAssistant:"),
    ],
)
def test_texts_that_begin_with_their_prompt_are_taken_as_they_are(tokenizers, tmp_path, chosen, rejected, prompt):
    path = saved(tmp_path / "a.jsonl", [{"chosen": chosen, "rejected": rejected}])
    rows = rows_of(path, "preference", tokenizers["chatml"], template="chat")

    for row, text in zip(rows, (chosen, rejected), strict=True):
        assert row["prompt_text"] == prompt
        assert row["prompt_text"] + row["answer"] == text
        assert labelled(tokenizers["chatml"], row) == [text.removeprefix(prompt) + "<|im_end|>"]


def test_several_turns_after_the_prompt_are_labelled_in_both(tokenizers, tmp_path):
    path = saved(tmp_path / "a.jsonl", [{"chosen": TALK, "rejected": [*TALK[:2], BAD]}])
    chosen, rejected = rows_of(path, "preference", tokenizers["marked"], template="chat")

    assert labelled(tokenizers["marked"], chosen) == ASSISTANT_TURNS
    assert labelled(tokenizers["marked"], rejected) == ["It is 5.<|im_end|>"]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "chosen and rejected are the same"),
        ({"prompt": "a", "chosen": "b", "rejected": " "}, "the response is empty"),
        ({"prompt": "a", "chosen": "b", "rejected": None}, "rejected should be text, found None"),
        ({"prompt": "", "chosen": "b", "rejected": "c"}, "the prompt is empty"),
        ({"chosen": "b", "rejected": "c"}, "there is no prompt, and chosen and rejected begin differently"),
        ({"chosen": "The sky", "rejected": "The sky is"}, "the response is empty"),
        ({"chosen": [GOOD], "rejected": [BAD]}, "there is no question before the first answer"),
        ({"prompt": "other", "chosen": [ASK, GOOD], "rejected": [ASK, BAD]}, "do not begin with the prompt"),
        ({"chosen": [ASK, GOOD], "rejected": [TALK[3], BAD]}, "do not answer the same prompt"),
        ({"chosen": [ASK, GOOD, TALK[3], BAD], "rejected": [ASK, GOOD]}, "do not answer the same prompt"),
        ({"chosen": [ASK, GOOD, ASK, BAD], "rejected": [ASK, GOOD, TALK[3], BAD]}, "do not answer the same prompt"),
        ({"prompt": [ASK, GOOD], "chosen": [BAD, ASK, BAD], "rejected": [GOOD]}, "so exactly one message must follow"),
        ({"chosen": [ASK, GOOD, TALK[3]], "rejected": [ASK, BAD]}, "the last message is by 'user'"),
    ],
)
def test_a_pair_that_cannot_be_used_is_one_reject(tokenizers, tmp_path, record, reason):
    first = {key: SHAPES["text"][key] for key in record}
    if "prompt" not in record:
        first = {"chosen": [ASK, GOOD], "rejected": [ASK, BAD]}
    rows, rejects = read(saved(tmp_path / "a.jsonl", [first, record]), "preference", tokenizers["plain"])

    assert len(rows) == 2
    assert [reject["row"] for reject in rejects] == [2]
    assert reason in rejects[0]["reason"]


def test_pairs_of_openrlhf_may_call_the_rejected_answer_reject(tokenizers, tmp_path):
    record = {"chosen": [ASK, GOOD], "reject": [ASK, BAD], "chosen_score": 1.0, "reject_score": 0.5}
    [chosen, rejected], rejects = read(saved(tmp_path / "a.jsonl", [record]), "preference", tokenizers["plain"])

    assert not rejects
    assert (chosen["answer"], rejected["answer"]) == (GOOD["content"], BAD["content"])
    assert (chosen["advantage"], rejected["advantage"]) == (1.0, -1.0)
