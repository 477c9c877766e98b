"""Handlers run isolated and side by side, and a request that goes wrong costs its own outcome alone."""

import os
from types import ModuleType

import pytest

from tests.core import misbehaving
from workflow_scripts.core.workers import Workers


@pytest.fixture(scope="module")
def run():
    with Workers(processes=2, cpu_seconds=1, wall_seconds=20) as running:
        yield running


def test_outcomes_come_in_the_order_of_the_requests(run):
    outcomes = run.handle(misbehaving, [f"return {number}" for number in range(50)])

    assert [outcome.values for outcome in outcomes] == [[str(number)] for number in range(50)]
    assert {outcome.fault for outcome in outcomes} == {None}


@pytest.mark.parametrize(
    ("request_text", "fault"),
    [
        ("loop", "more than"),  # 1 s of CPU, or on a busy machine 3 s
        ("sleep", "took more than 3 s"),
        ("raise", "ValueError"),
        ("exit", "exit status 3"),
        ("die", "signal 11"),
        ("memory", "MemoryError"),
        ("flood", "results are too long"),
        ("open", "PermissionError"),
        ("fork", "PermissionError"),
        ("socket", "PermissionError"),
    ],
)
def test_a_request_that_goes_wrong_keeps_what_it_emitted(run, request_text, fault):
    outcomes = run.handle(misbehaving, ["return 1", request_text, "return 2"])

    assert [outcome.fault is None for outcome in outcomes] == [True, False, True]
    assert fault in outcomes[1].fault
    assert outcomes[1].values[:1] == ["begun"]
    assert [outcomes[0].values, outcomes[2].values] == [["1"], ["2"]]


def holds(pid: int, text: bytes) -> bool:
    """Return whether the memory of a process holds a text."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb") as memory:
        for line in maps:
            region, rights = line.split()[:2]
            begin, end = (int(bound, 16) for bound in region.split("-"))
            if rights.startswith("rw"):
                memory.seek(begin)
                if text in memory.read(end - begin):
                    return True
    return False


def test_no_worker_process_holds_a_request_that_the_next_could_read():
    secret = "".join(chr(ord("a") + byte % 26) for byte in os.urandom(40))
    with Workers(processes=1) as one:
        assert one.handle(misbehaving, [f"return {secret}"])[0].values == [secret]
        [worker] = one.handlers[misbehaving.__name__]
        request = f"return {secret}".encode()
        assert holds(os.getpid(), secret.encode())
        assert not holds(worker.pid, request)


def test_large_requests_arrive_whole(run):
    long_text = "x" * 3_000_000
    [outcome] = run.handle(misbehaving, [f"length {long_text}"])
    assert outcome.values == [3_000_000]


def test_a_handler_that_cannot_start_stops_the_stage():
    with Workers(processes=1) as one, pytest.raises(RuntimeError, match=r"a worker.* ended \(exit status 1\)"):
        one.handle(ModuleType("workflow_scripts.no_such_module"), ["return 1"])


def test_programs_run_side_by_side_and_once():
    with Workers(processes=2) as two:
        programs = [f"import os\nprint({number}, os.urandom(8).hex())" for number in range(4)]
        two.run_all(programs)
        cached = dict(two.sandbox.cache)
        outputs = [two(program) for program in programs]

    assert [output["output"].split()[0] for output in outputs] == ["0", "1", "2", "3"]
    assert outputs == [cached[program] for program in programs]
