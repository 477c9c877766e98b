"""Programs in several sandboxes beside one sandbox, and programs that run into their limit."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.rollouts import results
from workflow_scripts.core.sandbox import DEFAULTS, Sandbox

SHORT = "total = sum(i * i for i in range(100_000 + {number}))\nprint(total)"  # about 10 ms
ENDLESS = "number = {number}\nwhile True:\n    number += 1"
SHARE = 0.05  # of endless programs


def seconds_of(programs: list[str], processes: int) -> float:
    """Return how long so many sandboxes take for programs."""
    with Sandbox(processes=processes) as sandbox, ThreadPoolExecutor(processes) as threads:
        list(threads.map(sandbox, [f"print({i})" for i in range(processes)]))  # the supervisors have started
        start = time.perf_counter()
        list(threads.map(sandbox, programs))
        return time.perf_counter() - start


def short_programs(processes: int, count: int, repeats: int) -> dict[str, Any]:
    """Compare the programs per second of several sandboxes with those of one, in turn."""
    ours, peer = [], []
    programs = [SHORT.format(number=number) for number in range(count)]
    for _ in range(repeats):
        ours.append(count / seconds_of(programs, processes))
        peer.append(count / seconds_of(programs, 1))
    return results.comparison("sandbox_pool", ours, peer, "programs/s", "one sandbox", "")


def endless_programs(processes: int, count: int) -> dict[str, Any]:
    """Return the time for programs of which some are endless, relative to their limits shared by the sandboxes."""
    every = round(1 / SHARE)
    programs = [(SHORT if number % every else ENDLESS).format(number=number) for number in range(count)]
    limits = DEFAULTS["cpu_seconds"] * len(range(0, count, every))
    relative = seconds_of(programs, processes) / (limits / processes)
    return results.value("endless_programs", [relative], "of the limits' sum / sandboxes")


def measure(processes: int = 2, count: int = 500, repeats: int = 5) -> list[dict[str, Any]]:
    """Return the results of this part."""
    return [short_programs(processes, count, repeats), endless_programs(processes, count)]
