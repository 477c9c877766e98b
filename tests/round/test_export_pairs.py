"""Preference pairs from graded answers."""

import json

import pytest

from workflow_scripts import export_pairs
from workflow_scripts.config.sections import RewardTraining
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json
from workflow_scripts.core.pickles import write_pickle
from workflow_scripts.core.records import read_records
from workflow_scripts.train_reward_model import read_pairs


def answer(question, text, reward, **fields):
    uid = f"{question}.{text}"
    record = {"uid": uid, "id": question, "question": f"{question}?", "answer": text, "reward": reward, "finish": "eos"}
    return record | fields


ANSWERS = [
    answer("q", "best", 0.9),
    answer("q", "good", 0.6),
    answer("q", "poor", 0.5),
    answer("q", "worst", 0.0),
    answer("q", " best ", 0.9, uid="again"),
    answer("q", "cut off", 1.0, finish="length"),
    answer("q", " ", 1.0),
    answer("q", "undecided", None),
    answer("equal", "one", 0.5),
    answer("equal", "two", 0.5),
    answer("alone", "one", 0.5),
]


@pytest.fixture
def export(tmp_path, monkeypatch):
    def run(answers, *options):
        write_pickle(tmp_path / "graded.pkl", answers)
        output = tmp_path / "pairs.jsonl"
        arguments = ["--results", tmp_path / "graded.pkl", "--output", output, *options]
        monkeypatch.setattr("sys.argv", ["export_pairs", *map(str, arguments)])
        export_pairs.main()
        return list(read_records(output))

    return run


def test_each_answer_is_in_one_pair_at_most(export, tmp_path, capsys):
    pairs = export(ANSWERS)
    assert [(pair["chosen"], pair["rejected"]) for pair in pairs] == [("best", "worst"), ("good", "poor")]
    assert pairs[0] == {
        "id": "q", "prompt": "q?", "chosen": "best", "rejected": "worst", "chosen_score": 0.9, "rejected_score": 0.0,
    }  # fmt: skip

    counts = read_json(tmp_path / "pairs.json")
    names = ("pairs", "unusable", "repeated", "unpaired")
    assert [counts[name] for name in names] == [2, 3, 1, 3]
    assert "2 pairs of 11 answers" in capsys.readouterr().out

    assert [pair["chosen"] for pair in export(ANSWERS, "--margin", "0.5")] == ["best"]


def test_a_conversation_is_the_prompt(export):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    pairs = export([answer("q", text, reward, messages=messages) for text, reward in (("a", 1.0), ("b", 0.0))])
    assert pairs[0]["prompt"] == messages


def test_answers_without_a_difference_are_refused(export):
    with pytest.raises(BadInput, match="no question has two usable answers whose rewards differ at all"):
        export(ANSWERS[-3:])
    with pytest.raises(BadInput, match=r"differ by 2\.0 or more"):
        export(ANSWERS, "--margin", "2")


def test_the_pairs_train_a_reward_model(export, tokenizers, tmp_path):
    export(ANSWERS)
    settings = RewardTraining(file=str(tmp_path / "pairs.jsonl"))
    pairs, rejects = read_pairs(settings, tokenizers["chatml"], 1000)
    assert (len(pairs), rejects) == (2, [])
    assert len({pair["key"] for pair in pairs}) == 1  # the pairs of a question are held out together
    assert json.loads((tmp_path / "pairs.jsonl").read_text().splitlines()[1])["chosen"] == "good"
