"""Record stages resume: finished batches are in the ledger, and nothing is computed twice."""

import pytest

from workflow_scripts.core.running.deadline import OutOfTime
from workflow_scripts.core.running.ledger import Ledger, batch_in, map_records, stream_records

JOBS = [{"uid": f"r{i}", "value": i} for i in range(10)]
BATCHES = [range(0, 4), range(4, 8), range(8, 10)]
SQUARES = [{"square": i**2} for i in range(10)]


def run(folder, jobs=JOBS, shard="1_0", seen=None, batches=BATCHES, fail_at=None):
    """Square the jobs' values; `seen` collects the batches that are computed."""

    def compute(batch):
        if seen is not None:
            seen.append([job["uid"] for job in batch])
        if fail_at is not None and any(job["value"] == fail_at for job in batch):
            raise KeyboardInterrupt
        return [{"square": job["value"] ** 2} for job in batch]

    return map_records(jobs, lambda job: job, compute, Ledger(folder, shard), batches, "test")


def test_an_interrupted_run_goes_on_at_its_batch(tmp_path, capsys):
    seen = []
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, fail_at=5)

    assert run(tmp_path, seen=seen) == SQUARES
    assert seen == [["r4", "r5", "r6", "r7"], ["r8", "r9"]]
    assert "4 of 10 records are in the ledger, going on at record r4" in capsys.readouterr().err


def test_a_changed_record_alone_is_computed_again(tmp_path):
    run(tmp_path)
    seen = []
    jobs = [job | {"value": 100} if job["uid"] == "r5" else job for job in JOBS]

    assert run(tmp_path, jobs, seen=seen)[5] == {"square": 10000}
    assert seen == [["r5"]]


@pytest.mark.parametrize("place", [3, 12, 40, -3])
def test_a_damaged_line_is_computed_again(tmp_path, capsys, place):
    """The checksum finds a changed digit, which would be valid JSON."""
    run(tmp_path)
    path = next(tmp_path.glob("*.jsonl"))
    lines = path.read_bytes().splitlines(keepends=True)
    damaged = bytearray(lines[1])
    damaged[place] ^= 1
    path.write_bytes(b"".join([lines[0], bytes(damaged), *lines[2:]]))

    seen = []
    assert run(tmp_path, seen=seen) == SQUARES
    assert seen == [["r4", "r5", "r6", "r7"]]
    assert "line 2 was cut off" in capsys.readouterr().err


def test_lines_without_a_checksum_are_read(tmp_path):
    assert batch_in(b'[["key", 1]]\n') == [["key", 1]]
    assert batch_in(b'[["key", 1]]') is None
    assert batch_in(b'{"other": 1}\n') is None


@pytest.mark.parametrize("cut", [1, 5, 20, 10_000])
def test_a_last_line_that_was_cut_off_is_dropped_with_a_message(tmp_path, capsys, cut):
    run(tmp_path)
    path = next(tmp_path.glob("*.jsonl"))
    data = path.read_bytes()
    start_of_last = data[:-1].rfind(b"\n") + 1
    path.write_bytes(data[: max(start_of_last + 1, len(data) - cut)])

    seen = []
    assert run(tmp_path, seen=seen) == SQUARES
    assert seen == [["r8", "r9"]]
    assert "line 3 was cut off" in capsys.readouterr().err


def test_results_are_found_under_another_number_of_shards(tmp_path):
    run(tmp_path, JOBS[:5], "2_0", batches=[range(5)])
    run(tmp_path, JOBS[5:], "2_1", batches=[range(5)])

    seen = []
    assert run(tmp_path, JOBS, "1_0", seen=seen) == SQUARES
    assert seen == []


def test_too_few_results_are_an_error(tmp_path):
    with pytest.raises(AssertionError, match="2 records in, 1 results out"):
        map_records(JOBS[:2], lambda job: job, lambda batch: [1], Ledger(tmp_path, "1_0"), [[0, 1]], "test")


def test_a_stage_whose_time_is_up_ends_after_each_batch(tmp_path, time_is_up):
    seen = []
    for _ in range(2):
        with pytest.raises(OutOfTime, match="finished records are in the ledger"):
            run(tmp_path, seen=seen)

    assert run(tmp_path, seen=seen) == SQUARES
    assert [len(batch) for batch in seen] == [4, 4, 2]  # each once


# ---------------------------------------------------------------- records that are finished one by one


def stream(folder, feed, seconds=1000.0):
    return stream_records(JOBS, lambda job: job, feed, Ledger(folder, "1_0"), range(10), "test", seconds=seconds)


def squares(uids, finished, tick):
    """Finish the jobs in the reverse order."""
    for uid in reversed(uids):
        finished(uid, {"square": int(uid[1:]) ** 2})
        tick()


def lines(folder) -> list[int]:
    """Return how many records each line of a ledger holds."""
    return [len(batch_in(line) or []) for path in folder.glob("*.jsonl") for line in path.open("rb")]


def test_records_enter_in_groups_and_come_back_in_order(tmp_path):
    assert stream(tmp_path / "slow", squares) == SQUARES
    assert lines(tmp_path / "slow") == [10]

    assert stream(tmp_path / "fast", squares, seconds=0) == SQUARES
    assert lines(tmp_path / "fast") == [1] * 10


def test_what_was_finished_before_an_error_is_kept(tmp_path, capsys):
    def fail(uids, finished, tick):
        for uid in uids[:4]:
            finished(uid, {"square": int(uid[1:]) ** 2})
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stream(tmp_path, fail)

    seen = []

    def rest(uids, finished, tick):
        seen.extend(uids)
        squares(uids, finished, tick)

    assert stream(tmp_path, rest) == SQUARES
    assert seen == ["r4", "r5", "r6", "r7", "r8", "r9"]
    assert "4 of 10 records are in the ledger, going on at record r4" in capsys.readouterr().err

    assert stream(tmp_path, fail) == SQUARES  # nothing is left to do
    assert sorted(lines(tmp_path)) == [4, 6]


def test_a_stream_ends_before_the_deadline_after_some_progress(tmp_path, monkeypatch):
    monkeypatch.setattr("workflow_scripts.core.running.ledger.Pace.is_over", lambda self: True)
    ended = []

    def feed(uids, finished, tick):
        tick()  # nothing is finished yet
        finished(uids[0], {"square": 0})
        ended.append(uids[0])
        tick()
        ended.append("more")

    with pytest.raises(OutOfTime, match="time is nearly up; finished records are in the ledger"):
        stream(tmp_path, feed)
    assert ended == ["r0"]
    assert lines(tmp_path) == [1]
