"""Scores of a pool that exist: the forms that are read, and what is said of others."""

import json

import pytest

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import write_dataset
from workflow_scripts.tasks.reference.import_scores import read_scores

POOL = ["a", "b"]


def saved(path, value) -> str:
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return str(path)


def test_scores_of_the_original_and_records_are_read(tmp_path):
    by_id = {"b": {"score": 0.5, "metric": "bleu"}, "a": {"score": 0.25, "metric": "bleu"}, "c": {"score": 1}}
    lines = "".join(json.dumps({"id": name, "bleu_score": value}) + "\n" for name, value in (("a", 0.25), ("b", 0.5)))
    records = [{"id": "a", "score": 0.25}, {"id": "b", "score": 0.5}]
    write_dataset(tmp_path / "data_grpo", train=[{"id": "a", "bleu_score": 0.25}, {"id": "b", "bleu_score": 0.5}])

    for path in (
        saved(tmp_path / "scores.json", by_id),
        saved(tmp_path / "scores.jsonl", lines),
        saved(tmp_path / "records.json", records),
        saved(tmp_path / "scores.csv", "id,bleu_score\na,0.25\nb,0.5\n"),
        str(tmp_path / "data_grpo"),
    ):
        assert read_scores(path, "bleu", POOL) == {"a": 0.25, "b": 0.5}, path


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": {"score": 0.5}}, "1 of 2 prompts of the pool have no score; the first is b. The file has 1 scores"),
        ({"a": {"score": 1, "metric": "rm"}}, "a: is scored by rm, but reference.selection.metric is bleu"),
        ({"a": 0.5}, "a: should be an object with score and metric, found 0.5"),
        ({"a": {"score": "high"}}, "a: the score should be a finite number, found 'high'"),
        ([{"id": "a", "rm_score": 1}], r"record 1: its keys are id, rm_score; the known forms are \{id: "),
        ([{"id": "a", "score": 1}, {"id": "a", "score": 1}], "the prompt a has two scores"),
        ([], "2 of 2 prompts of the pool have no score"),
    ],
)
def test_scores_that_cannot_be_used_are_described(tmp_path, value, message):
    with pytest.raises(BadInput, match=message):
        read_scores(saved(tmp_path / "scores.json", value), "bleu", POOL)
