"""Kill random processes of a run at random moments, start it again, and compare what it made with an undisturbed run.

    python -m benchmarks.chaos [--runs 100] [--seed 0]
    python -m benchmarks.chaos --only 17      # the run with this number again

Each run is one round of the default experiment with the numbers of the tests. It gets one or two kills: a signal
(SIGKILL, SIGTERM or SIGINT) to the driver, to a stage, to a process that works for a stage (a sandbox, a comparison),
or to the whole process group. The seed and the number of the run decide on them. Moments are counted in jobs that have
begun, so that they fall on the same work on a slow machine. After each kill, the same command is typed again.

A run survives if every final artefact has the bytes of the undisturbed run's, no further command was needed, and no
process and no lock is left. `recomputed` is the CPU time that jobs with several attempts took beyond that of the
undisturbed run, as a share of all its jobs. It includes starting Python and loading models, which is most of a job's
time in so small an experiment. The results go to benchmarks/out/chaos.json. Folders of runs that did not survive are
kept.
"""

import argparse
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.harness import Copy, tiny_config
from workflow_scripts.core.files import write_json
from workflow_scripts.core.running.manifest import file_digest

TARGET = "round1_checkpoint"
MADE = ("prompts", "results", "meta", "data", "checkpoints", "evaluation")  # folders of artefacts
OUT = Path(__file__).parent / "out"
VICTIMS = ("driver", "stage", "worker", "group")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
PATIENCE = 900  # seconds until a command counts as hanging
PRINTED = "output.txt"  # what the commands of a run printed, in its folder

Job = tuple[str, str]  # a stage and its output


def config() -> dict[str, Any]:
    """Return the default experiment with the numbers of the tests: a round takes about a minute on two free cores."""
    return tiny_config(wandb={"mode": "disabled"})


# ---------------------------------------------------------------- processes


class Watcher(threading.Thread):
    """Notes the CPU time of each stage below a driver, also of those that outlive it."""

    def __init__(self, driver: int):
        super().__init__(daemon=True)
        self.driver = driver
        self.processes: dict[int, psutil.Process] = {}
        self.seconds: dict[Job, dict[int, float]] = {}  # by job and process
        self.is_over = False
        self.start()

    def run(self) -> None:
        while not self.is_over:
            self.look()
            time.sleep(0.4)

    def end(self) -> None:
        """Stop watching."""
        self.is_over = True
        self.join()

    def look(self) -> None:
        """Note the processes that are there now."""
        try:
            below = psutil.Process(self.driver).children(recursive=True)
        except psutil.NoSuchProcess:
            below = []

        self.processes |= {process.pid: process for process in below}
        for pid, process in list(self.processes.items()):
            try:
                if job := job_of(process.cmdline()):
                    times = process.cpu_times()
                    self.seconds.setdefault(job, {})[pid] = sum(times[:4])
            except psutil.Error:
                continue

    def living(self, kind: str) -> list[psutil.Process]:
        """Return the processes of a kind that are alive."""
        found = []
        for process in list(self.processes.values()):
            try:
                if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                    command = process.cmdline()
                    is_of_kind = is_worker(command) if kind == "worker" else job_of(command) is not None
                    found += [process] if is_of_kind else []
            except psutil.Error:
                continue
        return found


def job_of(command: list[str]) -> Job | None:
    """Return the job that a command line is of, or None if it is no stage."""
    stages = [word for word in command if word.startswith("workflow_scripts.")]
    is_python = bool(command) and Path(command[0]).name.startswith("python")
    if not (stages and is_python and "--output" in command):
        return None
    return stages[-1], command[command.index("--output") + 1]


def is_worker(command: list[str]) -> bool:
    """Return whether a command line is that of a process that runs or compares text of a model."""
    return any(word.endswith(("core/sandbox.py", "core/workers.py")) for word in command)


def strike(process: subprocess.Popen, watcher: Watcher, kill: "Kill", choose: random.Random) -> str:
    """Send the signal and return who got it. If there is no such process at the moment, the driver gets it."""
    if kill.victim == "group":
        os.killpg(process.pid, kill.signal)
        return "group"

    watcher.look()
    candidates = watcher.living(kill.victim) if kill.victim != "driver" else []
    if not candidates:
        os.kill(process.pid, kill.signal)
        return "driver"
    choose.choice(sorted(candidates, key=lambda candidate: candidate.pid)).send_signal(kill.signal)
    return kill.victim


# ---------------------------------------------------------------- a run


@dataclass
class Reference:
    """An undisturbed run: the digests of its artefacts, the CPU seconds of its jobs, and their number."""

    artefacts: dict[str, str]
    seconds: dict[Job, float]
    jobs: int


@dataclass
class Kill:
    """A signal that is sent while a run is made."""

    moment: float  # the number of jobs that have begun, and the share of the next one's time
    victim: str
    signal: signal.Signals


@dataclass
class Outcome:
    """What became of a run."""

    number: int
    kills: list[str] = field(default_factory=list)
    starts: int = 0
    seconds: float = 0.0
    recomputed: float = 0.0
    faults: list[str] = field(default_factory=list)


def digests(copy: Copy) -> dict[str, str]:
    """Return the digest of each final artefact of a run."""
    files = [path for name in MADE for path in copy.path(name).rglob("*") if path.is_file()]
    kept = [path for path in files if path.name[0] != "." and not path.name.endswith(".usage.json")]
    return {str(path.relative_to(copy.folder)): file_digest(path) for path in sorted(kept)}


def begun(copy: Copy) -> int:
    """Return how many jobs of a run have begun, by their logs."""
    return sum(path.is_file() for path in copy.path("logs").rglob("*.log"))


def start(copy: Copy) -> subprocess.Popen:
    """Type the command, in a process group of its own as from a terminal."""
    command = [sys.executable, "-m", "snakemake", "--profile", "local", "--cores", "2", TARGET]
    with open(copy.folder / PRINTED, "ab") as file:
        return subprocess.Popen(
            command, cwd=copy.folder, stdout=file, stderr=file, stdin=subprocess.DEVNULL, start_new_session=True
        )


def undisturbed(folder: Path) -> Reference:
    """Make the run that all others are compared with."""
    copy = Copy(folder, config())
    process = start(copy)
    watcher = Watcher(process.pid)
    status = process.wait(PATIENCE)
    watcher.end()
    if status:
        raise SystemExit(f"the undisturbed run failed: {(folder / PRINTED).read_text()[-3000:]}")

    seconds = {job: sum(attempts.values()) for job, attempts in watcher.seconds.items()}
    return Reference(digests(copy), seconds, begun(copy))


class Trial:
    """A run with its kills."""

    def __init__(self, folder: Path, number: int, seed: int, reference: Reference):
        self.reference = reference
        self.copy = Copy(folder, config())
        self.choose = random.Random(f"{seed}.{number}")
        self.pause = sum(reference.seconds.values()) / max(1, len(reference.seconds))  # of a job
        self.outcome = Outcome(number)
        self.attempts: dict[Job, list[float]] = {}

    def plan(self) -> list[Kill]:
        """Return one kill or two, in the order of their moments."""
        kills = []
        for _ in range(self.choose.choice((1, 1, 2))):
            moment = self.choose.uniform(0, self.reference.jobs)
            kills.append(Kill(moment, self.choose.choice(VICTIMS), self.choose.choice(SIGNALS)))
        return sorted(kills, key=lambda kill: kill.moment)

    def make(self) -> Outcome:
        """Make the run, and say what became of it."""
        began = time.monotonic()
        status: int | None = 0
        for kill in [*self.plan(), None]:
            status = self.start(kill)

        if status:
            printed = (self.copy.folder / PRINTED).read_text(errors="replace")
            self.outcome.faults.append(f"the same command ends with {status}: {printed[-1500:]}")
        self.outcome.seconds = time.monotonic() - began
        self.outcome.recomputed = self.recomputed()
        self.outcome.faults += differences(self.reference.artefacts, digests(self.copy)) + leftovers(self.copy)
        return self.outcome

    def start(self, kill: Kill | None) -> int | None:
        """Type the command, kill what is to be killed, and return the exit status; None if the command hung."""
        process = start(self.copy)
        watcher = Watcher(process.pid)
        self.outcome.starts += 1

        try:
            if kill and wait_for_moment(self.copy, process, kill.moment, self.pause):
                victim = strike(process, watcher, kill, self.choose)
                self.outcome.kills.append(f"{kill.signal.name} to {victim} at {kill.moment:.1f}")
            return process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.outcome.faults.append("the command hangs")
            os.killpg(process.pid, signal.SIGKILL)
            return None
        finally:
            watcher.end()
            for job, seconds in watcher.seconds.items():
                self.attempts.setdefault(job, []).extend(seconds.values())

    def recomputed(self) -> float:
        """Return what several attempts of a job took beyond its undisturbed time, as a share of the whole run."""
        seconds = self.reference.seconds
        repeated = [sum(values) - seconds.get(job, 0.0) for job, values in self.attempts.items() if len(values) > 1]
        return sum(max(0.0, value) for value in repeated) / sum(seconds.values())


def wait_for_moment(copy: Copy, process: subprocess.Popen, moment: float, pause: float) -> bool:
    """Wait until so many jobs have begun, and a part of the next one's time. Return whether the run still works."""
    while begun(copy) < int(moment):
        if process.poll() is not None:
            return False
        time.sleep(0.05)

    time.sleep((moment % 1) * pause)
    return process.poll() is None


def differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """Return what is wrong with a run's artefacts."""
    missing = sorted(expected.keys() - found.keys())
    other = sorted(name for name in expected.keys() & found.keys() if expected[name] != found[name])
    more = sorted(found.keys() - expected.keys())
    named = {"missing": missing, "different": other, "too many": more}
    return [f"{what}: {', '.join(names[:4])}" for what, names in named.items() if names]


def leftovers(copy: Copy) -> list[str]:
    """Return what a run left behind that nobody needs: processes, locks, second names of outputs."""
    faults = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(copy.folder):
                faults.append(f"left behind: {' '.join(process.cmdline())[:200]}")
        except psutil.Error:
            continue

    kept = [*copy.path("").rglob(".*.kept"), *copy.path("state/kept").glob("*")]
    locks = list((copy.folder / ".snakemake/locks").glob("*.lock"))
    return [*faults, *(f"left behind: {path.relative_to(copy.folder)}" for path in [*kept, *locks])]


# ---------------------------------------------------------------- all runs


def summary(outcomes: list[Outcome], seed: int) -> dict[str, Any]:
    """Return the figures of all runs."""
    kills = [kill for outcome in outcomes for kill in outcome.kills]
    shares = [outcome.recomputed for outcome in outcomes]
    return {
        "seed": seed,
        "runs": len(outcomes),
        "survived": sum(not outcome.faults for outcome in outcomes),
        "kills": len(kills),
        "by_victim": dict(Counter(kill.split()[2] for kill in kills)),
        "by_signal": dict(Counter(kill.split()[0] for kill in kills)),
        "recomputed_median": statistics.median(shares),
        "recomputed_most": max(shares),
        "seconds": sum(outcome.seconds for outcome in outcomes),
        "outcomes": [asdict(outcome) for outcome in outcomes],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100, help="number of runs (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="decides on the kills (default: 0)")
    parser.add_argument("--only", type=int, help="number of the one run to make")
    args = parser.parse_args()

    root = Path(tempfile.mkdtemp(prefix="chaos-"))
    reference = undisturbed(root / "undisturbed")
    seconds = sum(reference.seconds.values())
    print(
        f"undisturbed: {reference.jobs} jobs, {len(reference.artefacts)} artefacts, {seconds:.0f} s of CPU", flush=True
    )

    outcomes = []
    for number in [args.only] if args.only is not None else range(args.runs):
        folder = root / f"run{number}"
        outcome = Trial(folder, number, args.seed, reference).make()
        outcomes.append(outcome)
        state = "; ".join(outcome.faults) or "identical"
        kills = ", ".join(outcome.kills) or "ended before the kill"
        print(f"{number}: {kills}; {outcome.recomputed:.1%} recomputed; {state}", flush=True)
        if not outcome.faults:
            shutil.rmtree(folder)
        write_json(OUT / "chaos.json", summary(outcomes, args.seed))

    figures = summary(outcomes, args.seed)
    print(
        f"{figures['survived']} of {figures['runs']} runs survived {figures['kills']} kills; recomputed: median "
        f"{figures['recomputed_median']:.1%}, most {figures['recomputed_most']:.1%}"
    )
    if figures["survived"] < figures["runs"]:
        print(f"the runs that did not survive are in {root}")
        return 1
    shutil.rmtree(root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
