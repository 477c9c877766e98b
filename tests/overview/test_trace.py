"""`trace` follows an answer from its question to the updates that learnt from it."""

import re
import subprocess
import sys
from collections import Counter

import pytest

from tests.harness import Copy
from workflow_scripts.core.files import read_json
from workflow_scripts.core.records import read_records
from workflow_scripts.overview.lineage import Lineage


@pytest.fixture(scope="module")
def lineage(finished) -> Lineage:
    return Lineage(finished.path(""), "math")


def trace(copy: Copy, *arguments: str) -> str:
    return copy.run("workflow_scripts.trace", *arguments)


def rows(copy: Copy) -> list[dict]:
    return list(read_records(copy.path("data/offline_small_r1_arithmetic.pkl")))


def graded(copy: Copy) -> list[dict]:
    shards = copy.path("results/r1").rglob("*_matchlog.pkl")
    return [record for path in shards for record in read_records(path)]


def test_an_answer_that_was_trained_on(finished):
    row = rows(finished)[0]

    output = trace(finished, row["uid"], "--round", "1")

    assert f"question   {row['question']}" in output
    assert f"policy {row['policy']} (checkpoint 0)" in output
    assert f"reward {row['reward']:g}" in output
    assert re.search(rf"a training row \({row['kind']}, advantage {row['advantage']:g}\), trained on in update", output)
    assert re.search(r"update \d+: ratio", output)
    assert "per sampled token, under the policy that answered" in output


def test_an_answer_that_was_left_out_has_the_reasons(finished, lineage):
    of_rows = rows(finished)
    uids = {row["uid"] for row in of_rows}
    learnt = {row["prompt_id"] for row in of_rows}
    record = next(record for record in graded(finished) if record["uid"] not in uids and record["id"] in learnt)

    [answer] = lineage.answers(record["id"], record["uid"])

    of_question = sum(other["id"] == record["id"] for other in graded(finished))
    in_data = sum(row["prompt_id"] == record["id"] for row in of_rows)
    assert answer.training is None
    assert sum(answer.left_out.values()) == of_question - in_data
    assert "left out of the training data" in trace(finished, record["uid"])


def test_each_row_is_in_one_update_of_each_epoch(finished, lineage):
    checkpoint = read_json(finished.path("checkpoints/r1/checkpoint.json"))
    updates = range(1, checkpoint["updates"] + 1)

    counts = Counter(row["uid"] for update in updates for row in lineage.rows_of_update(1, update))

    assert counts.keys() == {row["uid"] for row in rows(finished)}
    assert set(counts.values()) == {checkpoint["settings"]["epochs"]}


def test_the_rows_of_an_update_have_the_mean_reward_that_training_logged(finished, lineage):
    for entry in read_json(finished.path("checkpoints/r1/history.json")):
        of_update = lineage.rows_of_update(1, entry["step"])
        assert sum(row["reward"] for row in of_update) / len(of_update) == pytest.approx(entry["reward"], abs=1e-6)


def test_a_question_lists_its_answers_and_an_update_its_rows(finished):
    row = rows(finished)[0]

    question = trace(finished, row["question"])
    update = trace(finished, "round1:1")

    assert question.count("round 1, auto:") == 4 and question.count("round 1, trigger:") == 4
    assert f"id         {row['prompt_id']}, train" in question
    assert update.startswith(f"round 1, update 1: {min(16, len(rows(finished)))} rows") and "ratio 1" in update


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("nothing like this", "no question with this id or text"),
        ("What is", "questions; give more of the text, or an id"),
        ("round1:999", "it has updates 1 to"),
        ("round7:1", "it is not trained"),
    ],
)
def test_a_record_that_is_not_there(finished, record, message):
    command = [sys.executable, "-m", "workflow_scripts.trace", record]
    result = subprocess.run(command, cwd=finished.folder, capture_output=True, text=True)

    assert result.returncode == 65
    assert message in result.stderr and "Traceback" not in result.stderr
