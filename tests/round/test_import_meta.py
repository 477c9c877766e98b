"""The stages that read meta files and training rows of a run, and what they say of files that they cannot use."""

import json
import sys

import pytest

from workflow_scripts import import_data, import_meta, import_results
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json
from workflow_scripts.core.identity import record_id
from workflow_scripts.core.pickles import read_pickle, write_pickle
from workflow_scripts.core.tokens import encode_pieces, encode_prompt

PROMPT = "User:2+2?\n\nAssistant:"
PROGRAM = "```python\nprint(2 + 2)\n```\n```output\n4\n```\n"


@pytest.fixture(scope="module")
def checkpoint(tokenizers, tmp_path_factory):
    """Return a checkpoint that has a tokenizer and no weights."""
    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizers["chatml"].save_pretrained(folder / "model")
    (folder / "model/config.json").write_text('{"model_type": "llama"}')
    (folder / "checkpoint.json").write_text('{"digest": "d"}')
    return folder / "checkpoint.json"


@pytest.fixture
def stage(checkpoint, tmp_path, monkeypatch):
    """Return a function that runs a stage on a pickle with this value, and returns what it wrote."""

    def run(module, value, name: str, *options: str):
        write_pickle(tmp_path / "in.pkl", value)
        common = ["--task", "math", "--model", str(checkpoint), "--output", str(tmp_path / "out.pkl")]
        monkeypatch.setattr(sys, "argv", ["stage", *common, name, str(tmp_path / "in.pkl"), *options])
        module.main()
        return read_pickle(tmp_path / "out.pkl")

    return run


@pytest.fixture
def take_meta(stage):
    return lambda value, version="auto": stage(import_meta, value, "--meta", "--version", version)


@pytest.fixture
def take_rows(checkpoint, tmp_path, monkeypatch):
    """Return a function that takes rows of format `task`, with these settings of the config section `data`."""

    def run(records, **settings):
        write_pickle(tmp_path / "in.pkl", records)
        settings |= {"source": {"file": str(tmp_path / "in.pkl"), "format": "task"}}
        options = ["--task", "math", "--model", str(checkpoint), "--settings", json.dumps(settings)]
        monkeypatch.setattr(sys, "argv", ["stage", *options, "--output", str(tmp_path / "out.pkl")])
        import_data.main()
        return read_pickle(tmp_path / "out.pkl")

    return run


def own_answer(tokenizer, number: int, **changes) -> dict:
    """Return an answer as it stands in a run's meta file."""
    tokens, mask = encode_pieces(tokenizer, [("It is 4.", True)])
    return {
        "uid": f"q.auto.{number}",
        "answer": "It is 4.",
        "reward": 1.0,
        "prompt_tokens": encode_prompt(tokenizer, PROMPT),
        "tokens": tokens,
        "mask": mask,
        "policy": "a policy",
        "finish": "eos",
        "path": "cot",
        "trigger": "auto",
        "prompt_text": PROMPT,
    } | changes


def own_entry(*answers: dict, **changes) -> dict:
    """Return an entry of a run's meta file."""
    return {
        "id": "q",
        "question": "2+2?",
        "reference": "4",
        "level": "sums",
        "prompt_text": PROMPT,
        "answers": list(answers),
        "right": {"cot": 1, "pot": 0},
        "total": {"cot": 1, "pot": 0},
    } | changes


def autocode_entry(*texts: str) -> dict:
    """Return an entry of AutoCode's meta file with right answers by program."""
    responses = [{"match": True, "text": text, "logp": None, "req": PROMPT, "native": True} for text in texts]
    counts = {"cot_nc": 0, "cot_nt": 0, "pot_nc": len(texts), "pot_nt": len(texts)}
    return {"req": PROMPT, "task": "gsm8k", "correct": "4", "resps": {"cot": [], "pot": responses}} | counts


def offline_record(number: int, **changes) -> dict:
    """Return a record of AutoCode's offline data."""
    return {
        "qid": f"{number}.pot.auto.0",
        "req": PROMPT,
        "gold": "4",
        "type": "pot.auto.better",
        "instruction": "2+2?",
        "output": PROGRAM,
        "source": "self.gsm8k.pot",
        "trigger_value": "",
        "neg": False,
        "logp": None,
    } | changes


# ---------------------------------------------------------------- meta files


def test_a_meta_file_of_a_run_is_taken_as_it_is(take_meta, tokenizers, tmp_path, checkpoint):
    meta = {"q": own_entry(own_answer(tokenizers["chatml"], 0))}

    assert take_meta(meta) == meta
    manifest = read_json(tmp_path / "out.json")
    assert manifest["inputs"].keys() == {str(checkpoint), str(tmp_path / "in.pkl")}
    assert (manifest["rows"], manifest["questions"], manifest["foreign"], manifest["cot_right"]) == (1, 1, 0, 1)


def test_a_meta_file_of_the_original_gets_tokens_and_is_foreign(take_meta, tokenizers):
    meta = take_meta({"2+2?": autocode_entry(PROGRAM, "print(4)"), "3+3?": autocode_entry("print(6)")})

    [first, second] = meta[record_id("2+2?")]["answers"]
    assert first["uid"] == f"{record_id('2+2?')}.auto.0"
    assert second["uid"] == f"{record_id('2+2?')}.auto.1"
    assert (first["policy"], first["finish"], first["trigger"]) == ("foreign", "imported", "auto")
    assert first["prompt_tokens"] == encode_prompt(tokenizers["chatml"], PROMPT)
    assert 0 in first["mask"]  # the program's output is not the policy's
    assert first["tokens"][-1] == tokenizers["chatml"].eos_token_id
    assert meta[record_id("3+3?")]["total"] == {"cot": 0, "pot": 1}


def test_an_answer_without_its_prompt_gets_that_of_the_template(take_meta):
    entry = autocode_entry("print(4)")
    del entry["req"], entry["resps"]["pot"][0]["req"]

    [auto] = take_meta({"2+2?": entry})[record_id("2+2?")]["answers"]
    [triggered] = take_meta({"2+2?": entry}, "trigger")[record_id("2+2?")]["answers"]
    assert auto["prompt_text"] == PROMPT
    assert triggered["prompt_text"] == "User:2+2?\nLet's write a program.\n\n\nAssistant:"


def test_questions_that_read_alike_are_one(take_meta):
    meta = take_meta({"2+2?": autocode_entry("print(4)"), "2+2? ": autocode_entry("print(2+2)")})

    [entry] = meta.values()
    assert [answer["uid"].split(".")[-1] for answer in entry["answers"]] == ["0", "1"]
    assert entry["total"] == {"cot": 0, "pot": 2}


def spoilt(entry: dict, name: str, value) -> dict:
    """Return a meta file whose first answer has another value, or lacks it if the value is None."""
    answer = entry["answers"][0] | {name: value}
    return {"q": entry | {"answers": [{key: item for key, item in answer.items() if item is not None}]}}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("reward", None, r"question 'q', answer 0: lacks reward; it has uid, .*Known forms are a run's meta file"),
        ("reward", "1", r"answer 0: reward should be a number, found '1'"),
        ("path", None, r"answer 0: lacks path, which the task needs to select answers"),
        ("mask", [1], r"answer 0: \d+ tokens and a mask of 1"),
        ("prompt_tokens", [1, 2], r"answer 0: prompt_tokens are not those that this model's tokenizer makes"),
        ("tokens", [10**6] * 9, r"answer 0: tokens should be ids below \d+"),
    ],
)
def test_a_fault_of_an_answer_is_named(take_meta, tokenizers, name, value, message):
    answer = own_answer(tokenizers["chatml"], 0)
    if name == "tokens":
        answer |= {"mask": [1] * 9}
    with pytest.raises(BadInput, match=message):
        take_meta(spoilt(own_entry(answer), name, value))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {},
            r"in\.pkl: should be a mapping from questions to their answers, found an empty one; known forms are a run",
        ),
        ([], r"found list; known forms are .* and AutoCode's \(\{question: \{req, task, correct, resps\}\}\)"),
        (
            {"q": {"text": "a"}},
            r"question 'q': lacks id, question, .*, answers; it has text\. Known forms",
        ),
        ({"q": [1]}, r"question 'q': should be a record with keys, found list"),
        ({7: autocode_entry("a")}, r"question 7: the key should be the question, as text"),
    ],
)
def test_a_file_in_another_form_is_described(take_meta, value, message):
    with pytest.raises(BadInput, match=message):
        take_meta(value)


def test_an_answer_that_comes_twice_is_an_error(take_meta, tokenizers):
    answer = own_answer(tokenizers["chatml"], 0)
    with pytest.raises(BadInput, match=r"the answer q\.auto\.0 comes 2 times"):
        take_meta({"q": own_entry(answer, answer)})


# ---------------------------------------------------------------- training rows


def own_row(tokenizer, number: int, **changes) -> dict:
    """Return a training row of a run."""
    return own_answer(tokenizer, number) | {"advantage": 0.25, "prompt_id": "q", "question": "2+2?"} | changes


def test_rows_of_a_run_are_taken_as_they_are(take_rows, tokenizers, capsys, tmp_path):
    rows = [own_row(tokenizers["chatml"], number) for number in range(2)]

    assert take_rows(rows, advantage="group") == rows
    assert "2 rows keep the advantage that they came with" in capsys.readouterr().err
    assert read_json(tmp_path / "out.json")["policy"] == "a policy"


def test_rows_of_the_original_get_tokens_and_advantages(take_rows, tmp_path):
    wrong = offline_record(2, neg=True, output="It is 5.", type="cot.auto.better")
    rows = take_rows([offline_record(1), wrong], advantage="sign")

    assert [(row["uid"], row["advantage"], row["policy"]) for row in rows] == [
        ("1.pot.auto.0", 1.0, "foreign"),
        ("2.pot.auto.0", -1.0, "foreign"),
    ]
    assert 0 in rows[0]["mask"]
    assert read_json(tmp_path / "out.json")["policy"] == "foreign"


def test_groups_of_right_answers_stay_as_in_autocode(take_rows):
    rows = take_rows([offline_record(1), offline_record(2)], advantage="group_std")
    assert [row["advantage"] for row in rows] == [1.0, 1.0]


def test_a_row_without_its_prompt_gets_that_of_the_template(take_rows):
    records = [offline_record(1, req=None), offline_record(2, req=None, type="pot.trigger.trigger")]
    assert [row["prompt_text"] for row in take_rows(records)] == [
        PROMPT,
        "User:2+2?\nLet's write a program.\n\n\nAssistant:",
    ]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], r"in\.pkl: is empty; known forms are a run's training rows"),
        ([{"text": "a"}], r"in\.pkl, record 1: lacks uid, .*; it has text\. Known forms are .* and AutoCode's"),
        ([offline_record(1), offline_record(1)], r"record 2: the id 1\.pot\.auto\.0 is also that of record 1"),
        ([offline_record(1), offline_record(2, output=3)], r"record 2: output should be text, found 3"),
    ],
)
def test_rows_that_cannot_be_used_are_described(take_rows, records, message):
    with pytest.raises(BadInput, match=message):
        take_rows(records)


def test_rows_in_two_forms_and_rows_without_reward_are_errors(take_rows, tokenizers):
    row = own_row(tokenizers["chatml"], 0)
    with pytest.raises(BadInput, match="record 2: is in another form than the records before"):
        take_rows([row, offline_record(1)])

    del row["reward"]
    with pytest.raises(BadInput, match=r"data\.data_filter posonly: the row q\.auto\.0 has no reward"):
        take_rows([row], data_filter="posonly")


# ---------------------------------------------------------------- results


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], r"in\.pkl: has no records; known forms are a run's answers"),
        ([{"text": "a"}], r"in\.pkl, record 0: lacks question, .*; it has text\. Known forms are .* and AutoCode's"),
        ({"a": 1}, r"in\.pkl: expected a list of records, found dict"),
    ],
)
def test_results_that_cannot_be_used_are_described(stage, value, message):
    with pytest.raises(BadInput, match=message):
        stage(import_results, value, "--results")
