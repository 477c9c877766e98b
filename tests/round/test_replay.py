"""A run whose second round trains on rows of the first one again."""

import pytest

from tests.harness import outputs, tiny_config
from workflow_scripts.core.files import read_json
from workflow_scripts.core.pickles import read_pickle


@pytest.mark.slow
def test_a_round_replays_rows_of_the_round_before_with_their_log_probs(fork):
    config = tiny_config(rounds=2)
    config["data"] |= {"replay": {"share": 0.25}}
    fork.configure(config)
    planned = fork.snakemake("-n", "round2_checkpoint")
    for rule in ("train", "construct_data"):
        assert [path for path in outputs(planned, rule) if "r1" in path] == []  # round 1 stays as it is

    # The tiny model answers nothing right in round 2, so another reward counts.
    (fork.folder / "parity.py").write_text("def odd(answer, references, record):\n    return float(len(answer) % 2)\n")
    fork.configure(config | {"reward": [{"name": "odd", "reward": "parity.py:odd"}]})
    fork.snakemake("round2_checkpoint")

    data = "data/offline_small_r{}_arithmetic"
    first = {row["uid"]: row for row in read_pickle(fork.path(f"{data.format(1)}.pkl"))}
    logps = {}
    for path in fork.path(f"{data.format(1)}_logp").glob("*.pkl"):
        logps |= read_pickle(path)
    rows = read_pickle(fork.path(f"{data.format(2)}.pkl"))
    earlier = [row for row in rows if "origin" in row]

    assert len(earlier) == int((len(rows) - len(earlier)) / 3)
    for row in earlier:
        uid = row["uid"].removeprefix("r1.")
        assert row["tokens"] == first[uid]["tokens"]
        assert row["own_logps"].tolist() == logps[uid].tolist()

    history = read_json(fork.path("checkpoints/r2/history.json"))
    assert history[0]["ess_replayed"] < 1
    assert read_json(fork.path("checkpoints/r2/checkpoint.json"))["foreign"] == 0
    assert fork.snakemake("verify")
