import json
import sys

import pytest
from conftest import tiny_config
from conversations import SAID, TALK, labelled, saved

from workflow_scripts import construct_sft, export_rewarded, import_data
from workflow_scripts.core import chat, config, formats
from workflow_scripts.core.prompts import render
from workflow_scripts.core.records import BadInput, read_json, read_pickle, read_records, write_pickle
from workflow_scripts.core.sections import Source

# ---------------------------------------------------------------- supervised


def read(file, form, tokenizer, template="deepseek", segments=lambda text: [(text, True)], **keys):
    source = Source(file=str(file), format=form, **keys).model_dump()
    return formats.read_rows(source, tokenizer, template, segments)


def rows_of(*arguments, **keys) -> list[dict]:
    return read(*arguments, **keys)[0]


def without(rows: list[dict], *keys: str) -> list[dict]:
    return [{key: value for key, value in row.items() if key not in keys} for row in rows]


SFT_SHAPES = {
    "messages": {"messages": TALK[1:3]},
    "response": {"prompt": TALK[1]["content"], "response": TALK[2]["content"]},
    "completion": {"prompt": TALK[1]["content"], "completion": TALK[2]["content"]},
    "turns": {"prompt": TALK[1:2], "completion": TALK[2:3]},
    "question": {"question": TALK[1]["content"], "response": TALK[2]["content"]},
    "alpaca": {"instruction": TALK[1]["content"], "input": "", "output": TALK[2]["content"]},
}


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("shape", list(SFT_SHAPES))
def test_all_supervised_shapes_give_the_same_row(tokenizers, tmp_path, shape, suffix):
    tokenizer = tokenizers["chatml"]
    (row,) = rows_of(saved(tmp_path / f"a{suffix}", [SFT_SHAPES[shape]]), "sft", tokenizer, template="chat")
    assert labelled(tokenizer, row) == SAID[:1]
    assert without([row], "qid") == [
        chat.encode_turns(tokenizer, "chat", TALK[1:3], 1)
        | {"instruction": TALK[1]["content"], "policy": "foreign", "advantage": 1.0}
    ]


def test_an_answer_that_is_json_is_an_answer(tokenizers, tmp_path):
    said = '[{"name": "Anna", "role": "guest"}]'
    (row,) = rows_of(saved(tmp_path / "a.jsonl", [{"prompt": "Who?", "response": said}]), "sft", tokenizers["plain"])
    assert row["output"].strip() == said


def test_alpacas_input_follows_its_instruction(tokenizers, tmp_path):
    path = saved(tmp_path / "a.jsonl", [{"instruction": "Add.", "input": "2, 2", "output": "4"}])
    (row,) = rows_of(path, "sft", tokenizers["plain"], template="alpaca")
    assert row["req"].endswith("### Instruction:\nAdd.\n\n### Input:\n2, 2\n\n### Response:")
    assert rows_of(path, "sft", tokenizers["plain"])[0]["req"] == "User:Add.\n\n2, 2\n\nAssistant:"


def test_folders_that_datasets_saved_are_read(tokenizers, tmp_path):
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_list([SFT_SHAPES["messages"], SFT_SHAPES["messages"]])
    data.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": data, "test": data.select([0])}).save_to_disk(tmp_path / "two")
    tokenizer = tokenizers["plain"]
    assert len(rows_of(tmp_path / "one", "sft", tokenizer)) == len(rows_of(tmp_path / "two", "sft", tokenizer)) == 2
    assert len(rows_of(tmp_path / "two", "sft", tokenizer, split="test")) == 1
    with pytest.raises(BadInput, match=r"two: has no split 'eval', only train, test"):
        rows_of(tmp_path / "two", "sft", tokenizer, split="eval")
    (tmp_path / "three").mkdir()
    data.to_parquet(tmp_path / "three/train.parquet")
    assert len(rows_of(tmp_path / "three", "sft", tokenizer)) == 2


def test_records_without_ids_have_one_that_follows_from_their_texts(tokenizers, tmp_path):
    shapes = [SFT_SHAPES["response"], SFT_SHAPES["question"], SFT_SHAPES["response"]]
    first = rows_of(saved(tmp_path / "a.jsonl", shapes[::2]), "sft", tokenizers["plain"])
    again = rows_of(saved(tmp_path / "b.jsonl", shapes[1:2]), "sft", tokenizers["plain"])
    assert [row["qid"] for row in first] == [again[0]["qid"], f"{again[0]['qid']}.1"]


def test_an_error_of_the_template_names_the_record(tokenizers, tmp_path):
    talk = [m | {"content": "Hm.</think>" + m["content"]} if m["role"] == "assistant" else m for m in TALK]
    path = saved(tmp_path / "a.jsonl", [{"id": "one", "messages": TALK[:3]}, {"id": "two", "messages": talk}])
    with pytest.raises(BadInput, match=r"a\.jsonl, row 2, id two: the template 'chat'"):
        rows_of(path, "sft", tokenizers["forgetful"], template="chat")


# ---------------------------------------------------------------- rewarded


def answer(uid="a", reward=1.0, response="print(4)\n", prompt="2+2?", **more) -> dict:
    prompt = [{"role": "user", "content": prompt}, {"role": "assistant", "content": "```python\n"}]
    return {"uid": uid, "prompt_pretokenized": json.dumps(prompt), "accuracy": reward,
            "unprocessed_response": response} | more  # fmt: skip


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_rewarded_answers_are_kept_as_they_are(tokenizers, tmp_path, suffix):
    tokenizer = tokenizers["chatml"]
    path = saved(tmp_path / f"a{suffix}", [answer(response="python: nothing\n")])
    (row,) = rows_of(path, "rewarded", tokenizer, template="chat")
    assert row["req"] == "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n```python\n"
    assert labelled(tokenizer, row) == ["python: nothing\n<|im_end|>"]
    assert (row["qid"], row["reward"], row["policy"], row["instruction"]) == ("a", 1.0, "foreign", "2+2?")


def test_what_the_environment_wrote_into_a_rewarded_answer_is_masked(tokenizers, tmp_path):
    from workflow_scripts.tasks.math import segments

    text = "```python\nprint(4)\n```\n```output\n4\n```\nThe answer is 4."
    path = saved(tmp_path / "a.jsonl", [answer(response=text)])
    (row,) = rows_of(path, "rewarded", tokenizers["plain"], segments=segments)
    assert labelled(tokenizers["plain"], row) == [text.split("\n4\n")[0], "The answer is 4.<eos>"]


def test_keys_are_named_and_qid_with_sample_id_stands_in_for_uid(tokenizers, tmp_path):
    record = {"qid": "q", "sample_id": 3, "ask": "2+2?", "mark": 0.25, "say": "4"}
    keys = {"prompt_key": "ask", "reward_key": "mark", "response_key": "say"}
    (row,) = rows_of(saved(tmp_path / "a.jsonl", [record]), "rewarded", tokenizers["plain"], **keys)
    assert (row["qid"], row["req"], row["reward"]) == ("q-3", "User:2+2?\n\nAssistant:", 0.25)


def test_posonly_keeps_rewards_above_the_threshold_once_all_are_compared(stage, tmp_path):
    records = [answer(uid=str(reward), reward=reward) for reward in (0.0, 0.75, 0.76, 1.0)]
    path = saved(tmp_path / "a.jsonl", records)
    source = {"file": path, "format": "rewarded"}
    stage(import_data, {"source": source, "data_filter": "posonly", "advantage": "group"})
    rows = read_pickle(tmp_path / "out.pkl")
    assert [(row["qid"], round(row["advantage"], 4)) for row in rows] == [("0.76", 0.1325), ("1.0", 0.3725)]
    assert read_json(tmp_path / "out.json")["dropped"] == {"reward of 0.75 or less": 2}


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
        (
            {"prompt_pretokenized": '[{"role": "assistant", "content": "a"}]'},
            "nothing is asked before the first answer",
        ),
        ({"uid": None}, "no uid"),
        ({"uid": float("nan")}, "no uid"),
    ],
)
def test_a_record_that_cannot_be_used_is_a_reject_with_its_reason(tokenizers, tmp_path, change, reason):
    path = saved(tmp_path / "a.jsonl", [answer(uid="x"), answer(uid="y") | change, answer(uid="z")])
    rows, rejects = read(path, "rewarded", tokenizers["plain"])
    assert [row["qid"] for row in rows] == ["x", "z"]
    assert [(reject["row"], reject["id"]) for reject in rejects] == [(2, None if "uid" in change else "y")]
    assert rejects[0]["reason"].startswith(reason)


def test_an_id_that_comes_twice_is_an_error(tokenizers, tmp_path):
    path = saved(tmp_path / "a.jsonl", [answer(uid="x"), answer(uid="y"), answer(uid="x", reward="bad")])
    with pytest.raises(BadInput, match=r"a\.jsonl, row 3, id x: this id occurs before"):
        rows_of(path, "rewarded", tokenizers["plain"])


@pytest.mark.parametrize(
    ("form", "record", "message"),
    [
        ("rewarded", {"uid": "x", "accuracy": 1.0, "prompt_pretokenized": "[]"},
         "needs 'unprocessed_response'; its columns are accuracy, prompt_pretokenized, uid"),
        ("rewarded", {key: value for key, value in answer().items() if key != "uid"}, "needs `uid`, or `qid` and "),
        ("sft", {"text": "a"}, "needs `messages` or any of: prompt and response; .*; its columns are text"),
        ("preference", {"prompt": "a", "chosen": "b"}, "needs 'rejected'; its columns are chosen, prompt"),
    ],
)  # fmt: skip
def test_missing_columns_are_an_error_that_names_those_found(tokenizers, tmp_path, form, record, message):
    with pytest.raises(BadInput, match=rf"a\.jsonl: format {form} {message}"):
        rows_of(saved(tmp_path / "a.jsonl", [record]), form, tokenizers["plain"])


# ---------------------------------------------------------------- preferences

ASK, GOOD, BAD = TALK[1], TALK[4], {"role": "assistant", "content": "It is 5."}
PAIRS = {
    "text": {"prompt": ASK["content"], "chosen": GOOD["content"], "rejected": BAD["content"]},
    "TRL, messages": {"prompt": [ASK], "chosen": [GOOD], "rejected": [BAD]},
    "TRL, implicit prompt": {"chosen": [ASK, GOOD], "rejected": [ASK, BAD]},
    "OpenRLHF, prompt as text": {"prompt": ASK["content"], "chosen": [ASK, GOOD], "rejected": [ASK, BAD]},
    "answers as text": {"prompt": [ASK], "chosen": GOOD["content"], "rejected": BAD["content"]},
}


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("shape", list(PAIRS))
def test_all_preference_shapes_give_the_same_two_rows(tokenizers, tmp_path, shape, suffix):
    path = saved(tmp_path / f"a{suffix}", [PAIRS[shape] | {"uid": 7}])
    rows = rows_of(path, "preference", tokenizers["chatml"], template="chat")
    expected = [chat.encode_turns(tokenizers["chatml"], "chat", [ASK, last], 1) for last in (GOOD, BAD)]
    assert rows == [
        {"qid": f"7.{side}", "pair": "7", "policy": "foreign", "advantage": sign, "instruction": ASK["content"]} | row
        for side, sign, row in zip(("chosen", "rejected"), (1.0, -1.0), expected)
    ]


def test_openrlhfs_keys_are_named(tokenizers, tmp_path):
    record = {"question": ASK["content"], "response_0": GOOD["content"], "reject": BAD["content"], "uid": "7"}
    keys = {"prompt_key": "question", "chosen_key": "response_0", "rejected_key": "reject"}
    named = rows_of(saved(tmp_path / "a.jsonl", [record]), "preference", tokenizers["plain"], **keys)
    path = saved(tmp_path / "b.jsonl", [PAIRS["text"] | {"uid": "7"}])
    assert named == rows_of(path, "preference", tokenizers["plain"]) and len(named) == 2


@pytest.mark.parametrize(
    ("chosen", "rejected", "head"),
    [
        ("The sky is blue.", "The sky is green.", "The sky is"),  # the example of TRL's manual
        ("The sky is blue.", "The sky is black.", "The sky is"),
        ("\n\nHuman: Hi\n\nAssistant: Hello", "\n\nHuman: Hi\n\nAssistant: Bye", "\n\nHuman: Hi\n\nAssistant:"),
    ],
)
def test_texts_that_begin_with_their_prompt_are_taken_as_they_are(tokenizers, tmp_path, chosen, rejected, head):
    path = saved(tmp_path / "a.jsonl", [{"chosen": chosen, "rejected": rejected}])
    rows = rows_of(path, "preference", tokenizers["chatml"], template="chat")
    assert [row["req"] for row in rows] == [head, head]
    assert [row["req"] + row["output"] for row in rows] == [chosen, rejected]
    assert [labelled(tokenizers["chatml"], row) for row in rows] == [
        [chosen[len(head) :] + "<|im_end|>"], [rejected[len(head) :] + "<|im_end|>"],
    ]  # fmt: skip


def test_several_turns_after_the_prompt_are_labelled_in_both(tokenizers, tmp_path):
    path = saved(tmp_path / "a.jsonl", [{"chosen": TALK, "rejected": [*TALK[:2], BAD]}])
    rows = rows_of(path, "preference", tokenizers["marked"], template="chat")
    assert [labelled(tokenizers["marked"], row) for row in rows] == [SAID, ["It is 5.<|im_end|>"]]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "chosen and rejected are the same"),
        ({"prompt": "a", "chosen": "b", "rejected": " "}, "the response is empty"),
        ({"prompt": "a", "chosen": "b", "rejected": None}, "rejected should be text, found None"),
        ({"prompt": "", "chosen": "b", "rejected": "c"}, "the prompt is empty"),
        ({"chosen": "b", "rejected": "c"}, "there is no prompt, and chosen and rejected begin differently"),
        ({"chosen": "The sky", "rejected": "The sky is"}, "the response is empty"),
        ({"chosen": [GOOD], "rejected": [BAD]}, "nothing is asked before the first answer"),
        ({"prompt": "other", "chosen": [ASK, GOOD], "rejected": [ASK, BAD]}, "do not begin with the prompt"),
        ({"chosen": [ASK, GOOD], "rejected": [TALK[3], BAD]}, "do not answer the same prompt"),
        ({"chosen": [ASK, GOOD, TALK[3], BAD], "rejected": [ASK, GOOD]}, "do not answer the same prompt"),
        ({"chosen": [ASK, GOOD, ASK, BAD], "rejected": [ASK, GOOD, TALK[3], BAD]}, "do not answer the same prompt"),
        ({"prompt": [ASK, GOOD], "chosen": [BAD, ASK, BAD], "rejected": [GOOD]}, "so one message must follow"),
        ({"chosen": [ASK, GOOD, TALK[3]], "rejected": [ASK, BAD]}, "the last message is by 'user'"),
    ],
)
def test_a_pair_that_cannot_be_used_is_one_reject(tokenizers, tmp_path, record, reason):
    first = {key: PAIRS["text"][key] for key in record}
    if "prompt" not in record:
        first = {"chosen": [ASK, GOOD], "rejected": [ASK, BAD]}
    rows, rejects = read(saved(tmp_path / "a.jsonl", [first, record]), "preference", tokenizers["plain"])
    assert len(rows) == 2 and [reject["row"] for reject in rejects] == [2]
    assert reason in rejects[0]["reason"]


# ---------------------------------------------------------------- the stages


@pytest.fixture(scope="module")
def checkpoint(tokenizers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizers["chatml"].save_pretrained(folder / "model")
    (folder / "model/config.json").write_text('{"model_type": "llama"}')
    (folder / "checkpoint.json").write_text('{"digest": "d"}')
    return folder / "checkpoint.json"


@pytest.fixture
def stage(checkpoint, tmp_path, monkeypatch):
    """stage(module, settings) runs its main() with those settings and the output out.pkl."""

    def start(module, settings: dict) -> None:
        options = {"task": "arithmetic", "settings": json.dumps(settings), "template": "chat", "model": str(checkpoint)}
        options["output"] = str(tmp_path / "out.pkl")
        monkeypatch.setattr(sys, "argv", ["stage", *(part for key in options for part in (f"--{key}", options[key]))])
        module.main()

    return start


def test_import_data_writes_rows_manifest_and_rejects(stage, checkpoint, tmp_path, capsys):
    rewards = {"a": (1.0, 0.0, 0.5), "b": (0.5, 0.5), "c": (2.0, "bad")}
    records = [
        answer(uid=f"{name}{i}", prompt=name, reward=reward)
        for name, group in rewards.items() for i, reward in enumerate(group)
    ]  # fmt: skip
    path = saved(tmp_path / "a.jsonl", records)
    stage(import_data, {"advantage": "group", "source": {"file": path, "format": "rewarded"}})
    said = capsys.readouterr()
    assert said.out == "out.pkl: 3 rows, 1 rejects, 3 dropped\n"
    assert "2 of 3 groups have no variance and are dropped" in said.err
    rows, manifest = read_pickle(tmp_path / "out.pkl"), read_json(tmp_path / "out.json")
    assert [(row["qid"], row["advantage"]) for row in rows] == [("a0", 0.5), ("a1", -0.5), ("a2", 0.0)]
    assert manifest["inputs"].keys() == {str(checkpoint), path}
    assert (manifest["rows"], manifest["rejects"]) == (3, 1)
    assert manifest["dropped"] == {"answer in a group without variance": 3}
    assert [(reject["row"], reject["id"]) for reject in read_records(tmp_path / "out.rejects.jsonl")] == [(7, "c1")]


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        ({}, {}, r"must lie in \[0, 1\], found -1.5"),
        (
            {},
            {"data_filter": "posonly", "advantage": "raw"},
            "nothing is left to train on; left out: 1 × reward of 0.75 or less",
        ),
        ({"file": "./none"}, {}, r"there is no file \./none"),
        ({"file": "none.jsonl"}, {}, r"there is no file none\.jsonl"),
    ],
)
def test_import_data_stops_where_nothing_can_be_made(stage, tmp_path, change, settings, message):
    path = saved(tmp_path / "a.jsonl", [answer(reward=-1.5)])
    with pytest.raises(BadInput, match=message):
        stage(import_data, settings | {"source": {"file": path, "format": "rewarded"} | change})
    assert not (tmp_path / "out.pkl").exists()


def test_a_cold_start_reads_conversations_too(stage, tokenizers, tmp_path):
    path = saved(tmp_path / "a.jsonl", [{"messages": TALK}, {"messages": TALK[:2]}])
    stage(construct_sft, {"file": path})
    (row,) = read_pickle(tmp_path / "out.pkl")
    assert labelled(tokenizers["chatml"], row) == SAID
    assert [reject["reason"] for reject in read_records(tmp_path / "out.rejects.jsonl")] == [
        "no message by the assistant"
    ]
    solved = saved(tmp_path / "b.jsonl", [{"question": "2+2?", "solution": "4", "prompt": "p", "response": "r"}])
    stage(construct_sft, {"file": solved})
    assert [(row["qid"], row["output"]) for row in read_pickle(tmp_path / "out.pkl")] == [("sft.0", "4")]


def test_graded_answers_of_a_run_come_back_as_rewarded_ones(stage, tokenizers, tmp_path, monkeypatch, capsys):
    program = "```python\nprint(2 + 2)\n```\n```output\n4\n```\n"
    answers = [("a", program, True, "eos"), ("a", "It is 5.", False, "eos"), ("a", "It is", False, "length"),
               ("b", "It is 6.", True, "eos")]  # fmt: skip
    results = [
        {"uid": f"{name}.{i}", "question": name, "solution": text, "match": [{"pred": "", "res": right}], "finish": end}
        for i, (name, text, right, end) in enumerate(answers)
    ]
    write_pickle(tmp_path / "1_0_matchlog.pkl", results)
    options = ["--results", str(tmp_path / "1_0_matchlog.pkl"), "--output", str(tmp_path / "a.parquet")]
    monkeypatch.setattr(sys, "argv", ["export_rewarded", *options])
    export_rewarded.main()
    assert "3 answers, 2 of them right; 1 cut off or empty" in capsys.readouterr().out
    assert [row["normalized_reward"] for row in read_records(tmp_path / "a.parquet")] == [1, -1, 0]
    source = {"file": str(tmp_path / "a.parquet"), "format": "rewarded", "reward_key": "normalized_reward"}
    stage(import_data, {"source": source, "advantage": "raw"})
    rows = read_pickle(tmp_path / "out.pkl")
    assert [(row["qid"], row["advantage"]) for row in rows] == [("a.0", 1), ("a.1", -1), ("b.3", 0)]
    assert rows[0]["req"] == render("chat", "a", tokenizers["chatml"])
    assert labelled(tokenizers["chatml"], rows[0]) == [program.split("\n4\n")[0], "<|im_end|>"]


def test_a_tokenizer_from_scratch_learns_from_conversations(tmp_path):
    path = saved(tmp_path / "a.jsonl", [{"messages": TALK[1:]}, {"messages": "none"}, {"messages": TALK[1:3]}])
    texts = list(formats.sft_texts(path, "deepseek"))
    assert (
        texts[1] == "User:Grüße, 你好 🙂?\n\nAssistant:\n你好 🙂 " and texts[0].startswith(texts[1]) and len(texts) == 2
    )


def eval_only(**changes) -> dict:
    config = tiny_config(**changes)
    return config | {"prompts": {"eval": config["prompts"]["eval"]}}


def test_rows_come_either_from_answers_or_from_a_file():
    source = {"source": {"file": "a.jsonl", "format": "sft"}}
    for given in (tiny_config(data=source), eval_only()):
        with pytest.raises(
            config.ConfigError, match=r"give one of `prompts\.train`.*found (none|prompts\.train and data\.source)"
        ):
            config.load(given)


def test_keys_that_mean_nothing_to_a_format_are_refused():
    source = {"file": "a.jsonl", "format": "preference", "reward_key": "score"}
    with pytest.raises(config.ConfigError, match=r"data\.source: `reward_key` means nothing to format preference"):
        config.load(eval_only(data={"source": source}))
    pairs = eval_only(data={"source": source | {"reward_key": "accuracy"}}, train={"objective": "dpo"})
    assert config.load(pairs).data.source.split == "train"
