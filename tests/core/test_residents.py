"""Servers that stay between jobs: who uses them, when they leave, and what remains when somebody is killed."""

import os
import signal
import subprocess
import sys

import pytest

from tests.harness import REPOSITORY, wait_for
from workflow_scripts.core.files import read_json, write_json
from workflow_scripts.core.running import residents

SERVER = """
import socket, sys, time
from workflow_scripts.core.running import residents
keeper = residents.Keeper(sys.argv[1], float(sys.argv[2]))
listener = socket.socket(socket.AF_UNIX)
listener.bind(str(keeper.place.socket))
listener.listen()
while not keeper.is_over():
    time.sleep(0.02)
"""
FOR_EVER = 1e6


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Keep the servers' files in a folder of the test, and end the servers after it."""
    monkeypatch.setenv(residents.FOLDER, str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    yield tmp_path
    for record in tmp_path.glob("*.json"):
        os.kill(read_json(record)["pid"], signal.SIGKILL)


def use(kind: str = "a model", seconds: float = FOR_EVER) -> residents.Use:
    return residents.use(kind, lambda name: [sys.executable, "-c", SERVER, name, str(seconds)])


def has_left(used: residents.Use):
    return lambda: not used.place.record.exists()


def test_a_server_serves_one_job_after_another():
    first = use()
    assert first.is_new
    name = first.place.name
    first.end()

    second = use()
    assert (second.place.name, second.is_new) == (name, False)
    assert use().place.name != name  # while the second job uses it, a third one gets another
    second.end()
    assert use("another model").place.name != name


def test_a_server_leaves_when_no_job_has_used_it_for_some_time():
    used = use(seconds=0)
    assert used.place.record.exists()
    used.end()
    wait_for(has_left(used))
    assert use().is_new


def test_idle_servers_leave_when_a_job_waits_for_what_they_hold():
    idle, busy = use(), use()
    idle.end()
    residents.retire()
    wait_for(has_left(idle))
    assert busy.place.record.exists()

    busy.end()
    wait_for(has_left(busy))


def test_a_killed_server_is_replaced(folder):
    used = use()
    pid = read_json(used.place.record)["pid"]
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    used.end()

    again = use()
    assert again.is_new
    assert [path.stem for path in folder.glob("*.json")] == [again.place.name]


def test_the_server_of_a_killed_job_serves_another_one(folder):
    code = f"""
import sys, time
from workflow_scripts.core.running import residents
residents.use("a model", lambda name: [sys.executable, "-c", {SERVER!r}, name, "1e6"])
print("uses it", flush=True)
time.sleep(1e6)
"""
    job = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert job.stdout and job.stdout.readline() == "uses it\n"
    job.kill()
    job.communicate()

    assert not use().is_new


def test_a_process_that_has_the_number_of_an_ended_server_is_no_server():
    used = use()
    used.end()
    entry = read_json(used.place.record)
    os.kill(entry["pid"], signal.SIGKILL)
    os.waitpid(entry["pid"], 0)
    write_json(used.place.record, entry | {"pid": os.getpid()})

    assert use("another model").is_new
    assert not used.place.record.exists()


def test_a_server_that_waits_for_gpus_ends_with_the_job_that_started_it(monkeypatch):
    job = residents.Place("waiting")
    descriptor = job.try_to_use()
    monkeypatch.setenv(residents.SERVER, "waiting")
    residents.end_if_unused()

    os.close(descriptor)
    with pytest.raises(SystemExit):
        residents.end_if_unused()


def test_jobs_that_see_other_gpus_share_no_server(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    first = residents.surroundings()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert residents.surroundings() != first


def test_a_server_that_does_not_come_up_is_an_error_with_its_log(folder):
    with pytest.raises(residents.ServerFailed, match="exit status 65:\nno such model") as error:
        residents.use(
            "a model", lambda name: [sys.executable, "-c", "import sys; print('no such model'); sys.exit(65)"]
        )
    assert error.value.status == 65
    assert not list(folder.glob("*.json"))
