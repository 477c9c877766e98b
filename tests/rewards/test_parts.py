"""The built-in parts of a composed reward, and functions of the user's."""

import json
import time

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForSequenceClassification

from tests.engines.faulty_proxy import says
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.running.ledger import Ledger
from workflow_scripts.engines import Reply
from workflow_scripts.init_model import train_tokenizer
from workflow_scripts.rewards._parts import load_part, values
from workflow_scripts.rewards.judge import Judging, grade

ODD_TEXTS = ["", " ", "\x00\ud800", "a" * 10_000, "[" * 100_000, "<think>" * 5000, "9" * 5000]


def value(name, text, model=None, reference="b", tokens=0, **options):
    """Return the value of one answer, or the reason why there is none."""
    record = {"uid": "u", "question": "q", "answer": text, "reference": reference, "mask": [1] * tokens + [0]}
    [row] = values(name, load_part(name, model, options), [record])
    return row["reason"] if row["value"] is None else row["value"]


# ---------------------------------------------------------------- formulas


def test_exact():
    assert value("exact", " 4 \n", reference="4") == 1
    assert value("exact", "4", reference=["3", "4"]) == 1
    assert value("exact", "5", reference=["3", "4"]) == 0
    assert value("exact", "5", reference=None) == 0


def test_format():
    assert value("format", "<think>a\nb</think>\n<answer>4</answer>") == 1
    assert value("format", "a <think>b</think><answer>4</answer>") == 0
    assert value("format", "ab12", pattern=r"[a-z]+\d+") == 1
    with pytest.raises(BadInput, match=r"options\.pattern is no regular expression"):
        value("format", "", pattern="(")


def test_a_pattern_that_never_ends_is_undecided():
    start = time.monotonic()
    assert "was not matched within" in str(value("format", "a" * 5000 + "b", pattern=r"(a|aa)+$"))
    assert time.monotonic() - start < 60


def test_length():
    assert value("length", "", tokens=100, target=100) == 0
    assert value("length", "", tokens=75, target=100) == -0.25
    assert value("length", "", tokens=500, target=100) == -1


def test_overlong_is_dapos():
    lengths = {100: 0, 768: 0, 896: -0.5, 1024: -1, 4000: -1}
    assert {tokens: value("overlong", "", tokens=tokens) for tokens in lengths} == lengths
    with pytest.raises(BadInput, match=r"options\.buffer should be from 1 to limit 10"):
        value("overlong", "", limit=10)


def test_repetition():
    assert value("repetition", "one two three four") == 0
    assert value("repetition", "a b c a b c") == pytest.approx(3 / 4 - 1)
    assert value("repetition", "no no", n=1) == -0.5
    assert value("repetition", "word") == 0


def test_json_schema(tmp_path):
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}))

    def score(text):
        return value("json_schema", text, schema=str(schema))

    assert score('{"n": 4}') == 1
    assert score('Here it is:\n```json\n{"n": 1}\n```\nand better:\n```\n{"n": 2}\n```') == 1
    assert score('{"n": "4"}') == score("[1]") == score("four") == score("[" * 100_000) == 0
    schema.write_text('{"type": 5}')
    with pytest.raises(BadInput, match=r"options\.schema .*schema\.json"):
        score("{}")


@pytest.mark.parametrize("name", ["exact", "format", "length", "overlong", "repetition", "bleu", "rouge"])
@pytest.mark.parametrize("text", ODD_TEXTS)
def test_no_answer_ends_the_stage(name, text):
    assert isinstance(value(name, text), float | str)


# ---------------------------------------------------------------- functions of the user's

OWN = """
import math

def fails(answer, references, record):
    return inner(answer)

def inner(answer):
    return 1 / len(answer)

def words(answer, references, record):
    return len(answer.split())

def nothing(answer, references, record):
    return None
"""


def test_an_exception_is_reported_with_file_line_and_record(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(OWN)
    assert value(f"{file}:words", "two words") == 2
    with pytest.raises(BadInput) as caught:
        value(f"{file}:fails", "")
    assert f"record u: ZeroDivisionError: division by zero ({file}, line 8, in inner)" in str(caught.value)
    with pytest.raises(BadInput, match="record u: should be a finite number, found None"):
        value(f"{file}:nothing", "")

    file.write_text("import math\nx = math.sqrt(-1)\n")
    with pytest.raises(BadInput, match=r"ValueError: .*own\.py, line 2, in <module>"):
        load_part(f"{file}:other", None, {})


# ---------------------------------------------------------------- models


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = train_tokenizer(["What is this? A cat sat on the mat, and that was that."] * 3, 300)
    tokenizer.model_max_length = 64
    return tokenizer


def save(folder, model, tokenizer, template=None):
    tokenizer.chat_template = template
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def answers(count):
    return [
        {"uid": f"u{i}", "question": "What is this?", "answer": "A cat sat. " * (i % 4 + 1), "reference": "A cat."}
        for i in range(count)
    ]


def test_a_batch_scores_as_its_answers_do_alone(tmp_path, tokenizer):
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    llama = LlamaForSequenceClassification(LlamaConfig(vocab_size=len(tokenizer), num_labels=1, **shape))
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    path = save(tmp_path / "llama", llama, tokenizer, template)

    scorer = load_part("reward_model", path, {"batch_size": 3})
    batch = values("reward_model", scorer, answers(8))
    alone = [values("reward_model", scorer, [answer])[0]["value"] for answer in answers(8)]
    assert [row["value"] for row in batch] == pytest.approx(alone, abs=1e-5)
    assert len({round(score, 6) for score in alone}) == 4  # longer answers have other scores

    odd = values("reward_model", scorer, [answers(1)[0] | {"answer": text} for text in ODD_TEXTS])
    assert all(row["value"] is not None or "exceed" in row["reason"] for row in odd)

    old = load_part("rm", path, {})
    assert values("rm", old, answers(1))[0]["value"] == pytest.approx(alone[0], abs=1e-5)


def test_a_classifier_has_a_label(tmp_path, tokenizer):
    torch.manual_seed(0)
    names = {0: "bad", 1: "good", 2: "neither"}
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        id2label=names,
        label2id={name: number for number, name in names.items()},
    )
    path = save(tmp_path / "bert", BertForSequenceClassification(config), tokenizer)

    by_label = [
        [row["value"] for row in values("reward_model", load_part("reward_model", path, {"label": label}), answers(5))]
        for label in ("bad", "1", "neither")
    ]
    assert [sum(probabilities) for probabilities in zip(*by_label)] == pytest.approx([1.0] * 5, abs=1e-5)
    with pytest.raises(BadInput, match=r"several outputs; choose one with options\.label: 0 \(bad\), 1 \(good\)"):
        load_part("reward_model", path, {})

    long = answers(1)[0] | {"answer": "A cat sat. " * 60}
    [row] = values("reward_model", load_part("reward_model", path, {"label": "good"}), [long])
    assert row["value"] is None and "exceed the reward model's context of 64" in row["reason"]


# ---------------------------------------------------------------- the judge


@pytest.mark.parametrize(
    "text, expected", [("10", 1.0), ("**1**", 0.0), ("It is fine.\nGrade: 5.5/10.", 0.5), ("7 / 10", 2 / 3)]
)
def test_grades_become_values(text, expected):
    assert grade(Reply(text, "eos", None, 1))["value"] == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "11", "0", "good", "between 3 and 4", "-5"])
def test_what_is_no_grade_is_undecided(text):
    row = grade(Reply(text, "eos", None, 1))
    assert row["value"] is None and "no number from 1 to 10" in row["reason"]


def judge_settings(url, **changes):
    from workflow_scripts.config.sections import Judge

    return Judge(openai={"base_url": url, "model": "m", "key_env": None}, **changes).model_dump(mode="json")  # type: ignore[arg-type]


def test_a_judge_grades_and_compares(tmp_path):
    with says("8") as url:
        judging = Judging(judge_settings(url), None, "helpful", Ledger(tmp_path / "a", "1_0"))
        rows = judging.values(answers(3))
        judging.close()
    assert [row["value"] for row in rows] == pytest.approx([7 / 9] * 3)

    with says("8") as url:
        judging = Judging(judge_settings(url), None, "odd", Ledger(tmp_path / "c", "1_0"))
        rows = judging.values([answers(1)[0] | {"answer": text} for text in ODD_TEXTS])
        judging.close()
    assert {row["value"] for row in rows} == {7 / 9}

    with says("B") as url:
        judging = Judging(judge_settings(url, swapped=1.0), "reference", "better", Ledger(tmp_path / "b", "1_0"))
        rows = judging.values(answers(4))
        again = judging.values(answers(4))
        judging.close()
    assert [row["value"] for row in rows] == [0.5] * 4
    assert [row["preferred"] for row in rows] == [["second", "second"]] * 4
    assert again == rows
