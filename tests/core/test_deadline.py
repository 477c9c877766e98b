"""Test when a job's time is up, and whether another step fits."""

import time

import pytest

from workflow_scripts.core.running.deadline import Pace, deadline

VARIABLES = ("JOB_DEADLINE", "SLURM_JOB_END_TIME", "SLURM_JOB_ID")


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Forget the deadline before and after each test."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    deadline.cache_clear()
    yield
    deadline.cache_clear()


def test_without_a_scheduler_there_is_no_deadline():
    assert deadline() == float("inf")


def test_the_environment_tells_the_deadline(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_END_TIME", "200")
    assert deadline() == 200

    deadline.cache_clear()
    monkeypatch.setenv("JOB_DEADLINE", "100")
    assert deadline() == 100


def test_a_node_without_squeue_has_no_deadline(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    monkeypatch.setenv("PATH", "/nonexistent")
    assert deadline() == float("inf")


def test_a_step_that_might_not_end_in_time_is_not_begun():
    assert Pace(time.time() + 10).is_over()
    assert not Pace(time.time() + 3600).is_over()
    assert Pace(time.time() + 3600).is_over(reserve=3600)
    assert not Pace(float("inf")).is_over(reserve=3600)
