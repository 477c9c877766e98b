"""Digest files of shards: which of them an edit changes."""

import pytest

from workflow_scripts.core.files import write_jsonl, write_text
from workflow_scripts.core.identity import shard_of
from workflow_scripts.core.shards import STAMP, sync, sync_again, write_digests
from workflow_scripts.core.slices import Slicing, slice_of

RECORDS = [{"id": f"q{i}", "question": f"Question {i}"} for i in range(30)]
SLICING = Slicing(8, 0)


def texts(folder) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.txt")}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before | after if before.get(name) != after.get(name)}


@pytest.fixture
def place(tmp_path):
    """Return a prompts file and its folder of digests, of 4 shards and of 1, with those of rounds 1, 2 and 5."""
    path, folder = tmp_path / "train.jsonl", tmp_path / "train"
    write_jsonl(path, RECORDS)
    for n in (1, 2, 5):
        chosen = slice_of([record["id"] for record in RECORDS], SLICING, n)
        write_digests(folder / f"r{n}", [2, 1], [record for record in RECORDS if record["id"] in chosen])

    sync(folder, [4, 1], path, slicing=SLICING)
    return path, folder


def test_an_edit_changes_the_digests_of_its_shards_and_of_the_rounds_that_answer_it(place):
    path, folder = place
    before = texts(folder)
    assert {name for name in before if "/" not in name} == {"1_0.txt", *(f"4_{rank}.txt" for rank in range(4))}
    assert before["r5/1_0.txt"].startswith("8 records")

    ids = [record["id"] for record in RECORDS]
    for edited in ids:
        write_jsonl(path, [record | {"question": "?"} if record["id"] == edited else record for record in RECORDS])
        sync(folder, [4, 1], path, slicing=SLICING)

        expected = {f"4_{shard_of(edited, 4)}.txt", "1_0.txt"}
        for n in (1, 2, 5):
            if edited in slice_of(ids, SLICING, n):
                expected |= {f"r{n}/2_{shard_of(edited, 2)}.txt", f"r{n}/1_0.txt"}
        assert changed(before, texts(folder)) == expected

    write_jsonl(path, RECORDS)
    sync_again(folder)
    assert texts(folder) == before


def test_stamps_of_one_number_of_shards_are_understood(place):
    path, folder = place
    write_text(folder / STAMP, f'[4, ["{path}", 1, 1]]')
    before = texts(folder)

    write_jsonl(path, RECORDS[1:])
    sync_again(folder)
    assert changed(before, texts(folder)) == {f"4_{shard_of('q0', 4)}.txt"}
