"""Rows of earlier rounds: which are drawn, and what they carry."""

import numpy as np
import pytest

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.pickles import write_pickle
from workflow_scripts.core.replay import EarlierRound, replayed
from workflow_scripts.core.running.manifest import file_digest, write_manifest

SETTINGS = {"rounds": 2, "share": 0.5, "keep": "all"}


def earlier_round(folder, number: int, count: int = 4, sampling: float = 1.0, **changes) -> EarlierRound:
    """Write the data and log-probs of a round; half of its answers are right."""
    rows = []
    for i in range(count):
        row = {"uid": f"q{i}.auto.0", "policy": f"p{number}", "advantage": 1.0 - 2 * (i % 2), "tokens": [number, i]}
        rows.append(row | changes)
    data = folder / f"data{number}.pkl"
    write_pickle(data, rows)

    logps = folder / f"logp{number}.pkl"
    write_pickle(logps, {row["uid"]: np.full(2, -number - i / 8, np.float32) for i, row in enumerate(rows)})
    passport = {
        "model": f"p{number}",
        "tokenizer": "t",
        "data": file_digest(data),
        "dtype": "float32",
        "sampling": {"temperature": sampling},
    }
    write_manifest(logps, [], {}, passport=passport)
    return EarlierRound(number, str(data), (str(logps),))


def test_rows_carry_the_log_probs_of_their_own_policy_under_a_name_of_their_own(tmp_path):
    rounds = [earlier_round(tmp_path, 2), earlier_round(tmp_path, 1)]
    rows, facts = replayed(rounds, 100, SETTINGS, 0)

    assert [row["uid"] for row in rows] == [f"r{n}.q{i}.auto.0" for n in (1, 2) for i in range(4)]
    assert [row["origin"] for row in rows] == [1] * 4 + [2] * 4
    assert [row["own_logps"][0] for row in rows] == [-n - i / 8 for n in (1, 2) for i in range(4)]
    assert {row["policy"] for row in rows} == {"p1", "p2"}
    alike = {"dtype": "float32", "sampling": {"temperature": 1.0}}
    assert facts == {"rows": {"1": 4, "2": 4}, "left_out": {}, **alike}


@pytest.mark.parametrize(("share", "count"), [(0.5, 6), (0.25, 2), (0.75, 8)])
def test_the_share_limits_how_many_rows_are_drawn_and_the_seed_which(tmp_path, share, count):
    rounds = [earlier_round(tmp_path, 2), earlier_round(tmp_path, 1)]
    rows, facts = replayed(rounds, 6, SETTINGS | {"share": share}, 0)

    assert len(rows) == count
    assert facts["left_out"].get("beyond data.replay.share", 0) == 8 - count
    again, _ = replayed(rounds, 6, SETTINGS | {"share": share}, 0)
    assert [row["uid"] for row in again] == [row["uid"] for row in rows]


def test_wrong_answers_rows_of_other_policies_and_rows_that_were_replayed_before_stay_behind(tmp_path):
    rows, facts = replayed([earlier_round(tmp_path, 1)], 100, SETTINGS | {"keep": "right"}, 0)
    assert [row["advantage"] for row in rows] == [1.0, 1.0]
    assert facts["left_out"] == {"wrong answer": 2}

    rows, facts = replayed([earlier_round(tmp_path, 1, policy="foreign")], 100, SETTINGS, 0)
    assert not rows and facts["left_out"] == {"answer of another policy": 4}

    rows, _ = replayed([earlier_round(tmp_path, 1, own_logps=[0.0])], 100, SETTINGS, 0)
    assert not rows


def test_rounds_of_another_sampling_and_log_probs_of_other_data_are_refused(tmp_path):
    cold = earlier_round(tmp_path, 1, sampling=0.7)
    warm = earlier_round(tmp_path, 2)
    with pytest.raises(BadInput, match=r"data1\.pkl: its log-probs are of .*0\.7.* use fewer rounds"):
        replayed([warm, cold], 100, SETTINGS, 0)

    with pytest.raises(BadInput, match=r"logp2\.pkl: these log-probs are not of .*data1\.pkl"):
        replayed([EarlierRound(1, cold.data, warm.logps)], 100, SETTINGS, 0)
