"""Records are read from files of several formats, and what cannot be read is named with its line."""

import pytest

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.records import conserve, read_records


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.jsonl", b'{"a": 1}\n{"a": \n', r"p\.jsonl, line 2: not JSON"),
        ("p.jsonl", b'{"a": 1}\n[1]\n', r"p\.jsonl, line 2: expected an object, found list"),
        ("p.json", b'{"a": 1}', r"p\.json: expected a list of records, found dict"),
        ("p.txt", b"", r"not '\.txt'"),
        ("t.parquet", b"PAR1", r"t\.parquet: not a Parquet file"),
        ("t.pkl", b"\x80\x04torn", r"t\.pkl: not a readable pickle"),
        ("p.csv", b"a\n\xff\n", r"p\.csv: not UTF-8 text"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_line(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)

    with pytest.raises(BadInput, match=message):
        list(read_records(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n1,2,3\n", r"line 3: 3 cells, but the header has 2"),
        ("a,b\n1\n", r"line 2: 1 cells, but the header has 2"),
        ('a,b\n1,"2\n3,4\n', r"line 3: unexpected end of data"),
        ("a,a\n1,2\n", r"two columns are named 'a'"),
    ],
)
def test_a_table_that_was_cut_or_shifted_is_refused(tmp_path, text, message):
    path = tmp_path / "bad.csv"
    path.write_text(text)

    with pytest.raises(BadInput, match=rf"bad\.csv.*{message}"):
        list(read_records(path))


def test_every_record_that_came_in_goes_out_or_is_rejected():
    conserve("grade", 3, 2, 1)

    with pytest.raises(AssertionError, match="grade: 3 rows in, 1 out and 1 rejected"):
        conserve("grade", 3, 1, 1)
