"""Log-probs that exist for a round's rows: used if their passport fits, else computed again."""

import shutil

import numpy as np
import pytest

from tests.workshop import Workshop
from workflow_scripts import import_logp
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json
from workflow_scripts.core.pickles import read_pickle, write_pickle


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture
def existing(workshop, tmp_path):
    """Return a folder with the data's log-probs, which the test may change."""
    shutil.copytree(workshop.logp().parent, tmp_path / "existing")
    return tmp_path / "existing"


def take(workshop, existing, *options) -> dict:
    """Run the stage and return its manifest; the log-probs are beside it."""
    output = workshop.folder / "taken/1_0.pkl"
    shutil.rmtree(output.parent, ignore_errors=True)
    paths = ["--data", workshop.data, "--source", workshop.data, "--existing", existing, "--output", output]
    workshop.run(import_logp, "--model", workshop.checkpoint, *options, *paths)
    return read_json(output.with_suffix(".json")) | {"values": read_pickle(output)}


def test_log_probs_whose_passport_fits_are_taken(workshop, existing):
    values = read_pickle(existing / "1_0.pkl")
    marked = {uid: value + 1 for uid, value in values.items()}  # to be told from those that are computed
    write_pickle(existing / "1_0.pkl", marked)

    manifest = take(workshop, existing)
    assert manifest["taken"] == 16
    assert all(np.array_equal(manifest["values"][uid], value) for uid, value in marked.items())
    assert manifest["passport"] == read_json(existing / "1_0.json")["passport"]
    assert str(existing / "1_0.pkl") in manifest["inputs"]


def test_rows_without_log_probs_for_each_token_are_scored(workshop, existing, capsys):
    values = read_pickle(existing / "1_0.pkl")
    write_pickle(existing / "1_0.pkl", dict(list(values.items())[:10]) | {"r3": values["r3"][:-1]})

    manifest = take(workshop, existing)
    assert manifest["taken"] == 9
    printed = capsys.readouterr().err
    assert "1 rows have more or fewer log-probs than sampled tokens" in printed
    assert "9 of 16 rows have log-probs; 7 are scored" in printed
    for uid, value in values.items():
        np.testing.assert_allclose(manifest["values"][uid], value, atol=2e-6)


@pytest.mark.parametrize(
    ("options", "spoil", "reason"),
    [
        (("--temperature", 0.7), None, "computed for another sampling"),
        (("--settings", '{"dtype": "bfloat16"}'), None, "computed for another dtype"),
        ((), "1_0.json", r"no passport"),
    ],
    ids=["sampling", "dtype", "none"],
)
def test_log_probs_for_something_else_are_named_and_computed_again(workshop, existing, capsys, options, spoil, reason):
    if spoil:
        (existing / spoil).unlink()
    manifest = take(workshop, existing, *options)

    assert manifest["taken"] == 0
    assert f"1_0.pkl: not used, {reason}" in capsys.readouterr().err
    assert len(manifest["values"]) == 16
    assert str(existing / "1_0.pkl") not in manifest["inputs"]


def test_log_probs_that_cannot_be_used_are_errors(workshop, existing, tmp_path):
    write_pickle(existing / "1_0.pkl", [1])
    with pytest.raises(BadInput, match=r"1_0\.pkl: should be a mapping from uids to log-probs, found list"):
        take(workshop, existing)

    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=r"there are no \.pkl files in this folder"):
        take(workshop, tmp_path / "empty")
