"""The selection of a round's data: what it says about answers that are missing."""

import pytest

from workflow_scripts.construct_data import read_metas
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.pickles import write_pickle


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
