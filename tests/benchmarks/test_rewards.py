"""The reference twin under a reward model that learnt from the run's own graded answers."""

import pytest

from benchmarks.rewards.reward_model import LEAST_ACCURACY, run_twin
from tests.harness import jobs


@pytest.mark.slow
def test_a_round_learns_from_a_reward_model_of_its_own(tmp_path):
    twin = run_twin(tmp_path / "twin")
    before, after = twin["before"], twin["after"]

    certificate = twin["certificate"]
    assert certificate["accuracy"] >= LEAST_ACCURACY == 0.9
    assert certificate["pairs"] >= 50

    assert {"train_reward_model", "reward", "combine_rewards", "train"} <= jobs(twin["output"])
    assert "rule generate:" not in twin["output"]  # the answers of round 1 are there already

    change = after["against"]["before"]["part reward_model"]
    assert change["difference"] > 0 and change["p"] < 0.05
    assert after["bleu"] > before["bleu"] + 0.1  # which the round was not rewarded for
