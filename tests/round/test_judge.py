"""The judge: which of two answers is better, asked of an endpoint that always says the same."""

import json

import pytest

from tests.engines.faulty_proxy import says
from workflow_scripts import judge
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json
from workflow_scripts.core.pickles import write_pickle
from workflow_scripts.core.records import read_records
from workflow_scripts.core.running.manifest import write_manifest
from workflow_scripts.engines import Reply
from workflow_scripts.rewards._pairs import Judged, Pair, chat, is_shown_first, position_bias, verdict


def write_answers(tmp_path, name: str, texts: list[str]) -> str:
    """Write a graded shard of these answers to as many instructions."""
    rows = [{"uid": f"q{i}.0", "question": f"Say {i}.", "answer": text} for i, text in enumerate(texts)]
    write_pickle(tmp_path / name, rows)
    write_manifest(tmp_path / name, [], {}, rows=len(rows))
    return str(tmp_path / name)


def run_judge(monkeypatch, tmp_path, now: str, before: str, url: str, **changes) -> None:
    settings = {"openai": {"base_url": url, "model": "m", "key_env": None}} | changes
    options = ["--results", now, "--before", before, "--settings", json.dumps(settings)]
    monkeypatch.setattr("sys.argv", ["judge", *options, "--output", str(tmp_path / "r1.jsonl")])
    judge.main()


def test_a_judge_who_prefers_first_answers_favours_no_round(tmp_path, monkeypatch):
    """The newer answer wins where it is shown first, and equal answers tie."""
    now = write_answers(tmp_path, "now.pkl", [f" new {i}" for i in range(9)] + [" same"])
    before = write_answers(tmp_path, "before.pkl", [f" old {i}" for i in range(9)] + [" same"])
    with says("**A**.") as url:
        run_judge(monkeypatch, tmp_path, now, before, url)

    verdicts = {line["uid"]: line["verdict"] for line in read_records(tmp_path / "r1.jsonl")}
    expected = {f"q{i}.0": float(is_shown_first(f"q{i}.0")) for i in range(9)}
    assert verdicts == expected | {"q9.0": 0.5}
    assert 0 < sum(expected.values()) < 9

    (tmp_path / "r1.jsonl").unlink()
    judge.main()  # the server is gone, but all replies are in the ledger
    assert {line["uid"]: line["verdict"] for line in read_records(tmp_path / "r1.jsonl")} == verdicts


def test_what_is_no_verdict_is_a_reject(tmp_path, monkeypatch):
    now, before = (write_answers(tmp_path, f"{name}.pkl", [f" {name}"]) for name in ("now", "before"))
    with says("Both are fine.") as url:
        run_judge(monkeypatch, tmp_path, now, before, url)

    assert list(read_records(tmp_path / "r1.jsonl")) == []
    [reject] = read_records(tmp_path / "r1.rejects.jsonl")
    assert "neither A, B nor tie: 'Both are fine.'" in reject["reason"]


def test_both_rounds_answer_the_same_questions(tmp_path):
    now = write_answers(tmp_path, "now.pkl", [" a", " b"])
    before = write_answers(tmp_path, "before.pkl", [" a"])
    with pytest.raises(BadInput, match=r"the round before has no answer q1\.0"):
        judge.read_pairs([now], [before])


@pytest.mark.parametrize("text", ["A tie.", "A and B are equal: tie", "A better answer is B", ""])
def test_a_verdict_is_one_word(text):
    judged = verdict(Reply(text, "eos", None, 1), True)
    assert judged.value is None
    assert judged.reason and "neither A, B nor tie" in judged.reason


def test_a_tie_is_half_a_win():
    assert verdict(Reply(" **Tie**\n", "eos", None, 1), True) == Judged(0.5, None, ["tie"])


def test_a_judge_who_prefers_first_answers_is_found_out(tmp_path, monkeypatch, capsys):
    """Shown in both orders, each pair is a tie, and no verdict is the same in both."""
    now = write_answers(tmp_path, "now.pkl", [f" new {i}" for i in range(40)])
    before = write_answers(tmp_path, "before.pkl", [f" old {i}" for i in range(40)])
    rubric = tmp_path / "rubric.md"
    rubric.write_text("Which answer is shorter?")
    with says("A") as url:
        run_judge(monkeypatch, tmp_path, now, before, url, swapped=0.5, rubric=str(rubric))

    lines = {line["uid"]: line for line in read_records(tmp_path / "r1.jsonl")}
    swapped = [line for line in lines.values() if len(line["preferred"]) == 2]
    assert 10 < len(swapped) < 30
    assert all(line["verdict"] == 0.5 for line in swapped)

    bias = read_json(tmp_path / "r1.json")["position_bias"]
    assert (bias["first"], bias["consistent"], bias["swapped"]) == (1.0, 0.0, len(swapped))
    assert bias["asked"] == 40 + len(swapped)
    assert "the first answer won 100.0%" in capsys.readouterr().out
    assert str(rubric) in read_json(tmp_path / "r1.json")["inputs"]


def test_the_rubric_is_what_the_judge_is_asked():
    pair = Pair("x", "Say {a}.", "one", "two")
    content = chat(pair, True, "Which answer has fewer {letters}?", 4).messages[0]["content"]
    assert content.startswith("Which answer has fewer {letters}?\n\nInstruction:\nSay {a}.\n\nAnswer A:\none")


def test_a_consistent_judge_has_no_bias():
    bias = position_bias([["first", "second"], ["second", "first"], ["tie", "tie"], ["first"], ["second"], []])
    assert (bias["first"], bias["consistent"], bias["swapped"], bias["asked"]) == (0.5, 1.0, 3, 8)
    assert bias["low"] < 0.5 < bias["high"]
    assert position_bias([[]]) == {"asked": 0, "swapped": 0}
