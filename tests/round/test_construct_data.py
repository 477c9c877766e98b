"""The selection of a round's data: what it says about answers that are missing."""

import json
from collections import Counter

import numpy as np
import pytest

from workflow_scripts.config.sections import Data
from workflow_scripts.construct_data import main, read_metas
from workflow_scripts.core.advantages import drop_truncated
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json, write_json
from workflow_scripts.core.pickles import read_pickle, write_pickle
from workflow_scripts.core.running.manifest import file_digest


@pytest.mark.parametrize(
    ("expected", "message"),
    [((), ""), (("auto",), ""), (("auto", "trigger"), "no trigger meta: the selection uses auto answers only\n")],
)
def test_only_versions_that_the_config_asks_for_are_missed(tmp_path, capsys, expected, message):
    write_pickle(tmp_path / "auto.pkl", {"q": {"answers": []}})
    assert read_metas({"auto": str(tmp_path / "auto.pkl")}, expected) == {"auto": {"q": {"answers": []}}}
    assert capsys.readouterr().err == message


def test_without_any_meta_there_is_nothing_to_select_from():
    with pytest.raises(BadInput, match="give --auto, --trigger or both"):
        read_metas({}, ("auto",))


# ---------------------------------------------------------------- answers that were cut off


def answer(uid: str, reward: float, finish: str) -> dict:
    tokens = {"prompt_tokens": [1], "tokens": [2, 3], "mask": [1, 1], "policy": "p"}
    return {"uid": uid, "answer": uid, "reward": reward, "finish": finish, **tokens}


def construct(folder, monkeypatch, *options, **settings) -> tuple[dict[str, float], dict]:
    """Return the advantages by uid, and the manifest, of a group in which two answers of four were cut off."""
    prompt = {"id": "q", "question": "?", "reference": "1", "level": "x", "prompt_text": "?"}
    answers = [answer("a", 1.0, "eos"), answer("b", 0.0, "eos"), answer("c", 1.0, "length"), answer("d", 0.0, "length")]
    write_pickle(folder / "meta.pkl", {"q": prompt | {"answers": answers}})
    write_json(folder / "checkpoint.json", {"digest": "p"})

    command = ["construct_data", "--task", "code", "--auto", str(folder / "meta.pkl"), "--model", "none"]
    command += ["--settings", json.dumps({"advantage": "group"} | settings), "--output", str(folder / "data.pkl")]
    monkeypatch.setattr("sys.argv", [*command, *options])
    main()
    rows = read_pickle(folder / "data.pkl")
    return {row["uid"]: row["advantage"] for row in rows}, read_json(folder / "data.json")


def test_answers_that_were_cut_off_are_kept_masked_or_penalised(tmp_path, monkeypatch):
    advantages, manifest = construct(tmp_path, monkeypatch)
    assert advantages == {"a": 0.5, "b": -0.5, "c": 0.5, "d": -0.5}
    assert manifest["dropped"] == {} and "penalised" not in manifest

    advantages, manifest = construct(tmp_path, monkeypatch, truncated="mask")
    assert advantages == {"a": 0.5, "b": -0.5}
    assert manifest["dropped"] == {"answer that was cut off": 2}

    advantages, manifest = construct(tmp_path, monkeypatch, truncated="penalise", truncated_reward=-1.0)
    assert advantages == {"a": 1.25, "b": 0.25, "c": -0.75, "d": -0.75}
    assert manifest["penalised"] == 2

    advantages, _ = construct(tmp_path, monkeypatch, truncated="penalise")
    assert advantages == {"a": 0.75, "b": -0.25, "c": -0.25, "d": -0.25}


def test_answers_beyond_max_length_are_cut_before_advantages_are_computed(tmp_path, monkeypatch):
    advantages, manifest = construct(tmp_path, monkeypatch, max_length=2)
    rows = read_pickle(tmp_path / "data.pkl")

    assert advantages == {"a": 0.5, "b": -0.5, "c": 0.5, "d": -0.5}
    assert {(tuple(row["tokens"]), tuple(row["mask"]), row["finish"]) for row in rows} == {((2,), (1,), "length")}
    assert manifest["shortened"] == 4

    _, manifest = construct(tmp_path, monkeypatch, max_length=3)
    assert "shortened" not in manifest


def test_answers_that_are_cut_to_max_length_are_penalised_like_others(tmp_path, monkeypatch):
    with pytest.raises(BadInput, match="'answer in a group without variance': 4"):
        construct(tmp_path, monkeypatch, max_length=2, truncated="penalise")


def test_a_pair_with_an_answer_that_was_cut_off_is_dropped_as_a_whole():
    rows = [
        {"pair": pair, "finish": finish} for pair, finish in (("x", "eos"), ("x", "length"), ("y", "eos"), ("y", "eos"))
    ]
    dropped: Counter = Counter()
    kept = drop_truncated(rows, Data(truncated="mask").model_dump(), dropped)
    assert [row["pair"] for row in kept] == ["y", "y"]
    assert dropped == {"answer that was cut off": 2}


# ---------------------------------------------------------------- rows of earlier rounds


def test_rows_of_an_earlier_round_join_with_their_log_probs_and_are_counted_apart(tmp_path, monkeypatch):
    construct(tmp_path, monkeypatch)
    rows = read_pickle(tmp_path / "data.pkl")
    earlier = tmp_path / "earlier.pkl"
    write_pickle(earlier, rows)
    write_pickle(tmp_path / "logp.pkl", {row["uid"]: np.full(2, -0.5, np.float32) for row in rows})
    passport = {"model": "p", "data": file_digest(earlier), "dtype": "float32", "sampling": {"temperature": 1.0}}
    write_json(tmp_path / "logp.json", {"passport": passport})

    options = ["--replay", f"1={earlier}", "--replay-logp", f"1={tmp_path}/logp.pkl"]
    advantages, manifest = construct(tmp_path, monkeypatch, *options, replay={"share": 0.4, "keep": "right"})

    assert len(advantages) == manifest["rows"] == 6
    assert {uid for uid in advantages if uid.startswith("r1.")} == {"r1.a", "r1.c"}
    assert manifest["replayed"]["rows"] == {"1": 2}
    assert manifest["replayed"]["left_out"] == {"wrong answer": 2}
    assert manifest["dropped"] == {}
    assert read_pickle(tmp_path / "data.pkl")[-1]["own_logps"].tolist() == [-0.5, -0.5]
