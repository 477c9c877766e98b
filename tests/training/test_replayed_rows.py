"""Training on rows of earlier rounds: their ratios are against the policies that sampled them."""

import numpy as np
import pytest
import torch

from tests.workshop import Workshop, logps_one_by_one, make_rows
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json, write_json
from workflow_scripts.core.pickles import read_pickle


class SecondRound(Workshop):
    """The second round of a workshop: four rows of its own, and eight that the start sampled in the first."""

    def __init__(self, folder):
        super().__init__(folder)
        first = self.logp(name="first")
        self.train("moved", "--logp", first, objective="clip", lr=3e-3, epochs=4)
        self.moved = folder / "moved/checkpoint.json"
        own_logps = read_pickle(first)
        earlier = [
            row | {"uid": f"r1.{row['uid']}", "origin": 1, "own_logps": own_logps[row["uid"]]}
            for row in read_pickle(self.data)[:8]
        ]
        policy = read_json(self.moved)["digest"]
        own = [row | {"uid": f"n{number}", "policy": policy} for number, row in enumerate(make_rows(4, 1))]
        self.write([*own, *earlier])

        passport = read_json(first.with_suffix(".json"))["passport"]
        common = {name: passport[name] for name in ("dtype", "sampling")}
        manifest = self.data.with_suffix(".json")
        write_json(manifest, read_json(manifest) | {"replayed": {"rows": {"1": 8}, **common}})
        self.second = self.logp(self.moved, name="second")

    def ratios(self) -> list[np.ndarray]:
        """Return π_start/π_sampled of the tokens of each replayed row, by the stock models."""
        start, moved = self.model(), self.model("moved")
        with torch.no_grad():
            pairs = [(logps_one_by_one(moved, r), logps_one_by_one(start, r)) for r in read_pickle(self.data)[4:]]
        return [(new - old).exp().numpy() for new, old in pairs]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return SecondRound(tmp_path_factory.mktemp("replay"))


def test_weights_of_replayed_rows_equal_a_direct_computation(workshop):
    settings = {"objective": "clip", "batch_size": 12}
    trained = workshop.train("replayed", "--logp", workshop.second, model=workshop.moved, **settings)
    first = trained["history"][0]
    ratios = np.concatenate(workshop.ratios())

    assert np.abs(ratios - 1).max() > 0.05
    assert first["ratio_replayed"] == pytest.approx(ratios.mean(), rel=1e-4)
    assert first["ess_replayed"] == pytest.approx(ratios.mean() ** 2 / (ratios**2).mean(), rel=1e-4)
    assert first["ratio_fresh"] == pytest.approx(1, abs=1e-5)
    assert first["ess_fresh"] == pytest.approx(1, abs=1e-5)
    assert trained["foreign"] == 0


def test_stale_rows_are_left_out(workshop):
    distances = [float(np.abs(np.log(ratios)).mean()) for ratios in workshop.ratios()]
    limit = sorted(distances)[3] + 1e-4
    settings = {"objective": "clip", "batch_size": 12, "max_staleness": limit}
    trained = workshop.train("fresh", "--logp", workshop.second, model=workshop.moved, **settings)

    assert trained["rows"] == 8
    assert sum(trained["rejects"].values()) == len(trained["stale"]) == 4


def test_replayed_rows_of_another_sampling_are_refused(workshop):
    manifest = workshop.data.with_suffix(".json")
    whole = read_json(manifest)
    write_json(manifest, whole | {"replayed": whole["replayed"] | {"sampling": {"temperature": 0.7}}})

    with pytest.raises(BadInput, match="log-probs of replayed rows are of another sampling"):
        workshop.train("refused", "--logp", workshop.second, model=workshop.moved, objective="clip")
    write_json(manifest, whole)
