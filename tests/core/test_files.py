"""Files are put in place whole, and structured columns come back as they were."""

import pytest

from workflow_scripts.core.files import replacing, write_parquet, write_text
from workflow_scripts.core.records import read_records


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_lists_and_dicts_survive_parquet(tmp_path):
    records = [
        {"id": "a", "reference": ["x", "y"], "messages": [{"role": "user", "content": "é"}]},
        {"id": "b", "reference": [], "messages": None},
    ]
    write_parquet(tmp_path / "a.parquet", records)

    assert list(read_records(tmp_path / "a.parquet")) == records
