"""Helpers of all tests: the repository, small configs, and a way to run real Snakemake on a copy of the workflow."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
PARTS = (
    "Snakefile",
    "rules",
    "workflow_scripts",
    "envs",
    "profiles",
    "report",
    "recipes",
    "config.yaml",
    "local",
    "slurm",
)
NOTHING_TO_DO = "Nothing to be done"


def tiny_config(**changes: Any) -> dict[str, Any]:
    """Return the default experiment with a model and numbers that take seconds. It learns nothing."""
    config = yaml.safe_load((REPOSITORY / "config.yaml").read_text())
    levels = ("one_digit", "two_digit_sum", "two_digit_product")

    config["rounds"] = 1
    config["prompts"] = {"train": {"count": dict.fromkeys(levels, 8)}, "eval": {"count": dict.fromkeys(levels, 4)}}
    config["model"]["scratch"] |= {"layers": 2, "width": 64, "heads": 2, "mlp_width": 128}
    config["cold_start"]["count"] = {level: {"direct": 300, "code": 300} for level in levels}
    config["generate"]["auto"] |= {"samples": 4, "max_tokens": 40}
    config["generate"]["trigger"] |= {"samples": 2, "max_tokens": 40}
    config["generate"]["eval"] |= {"max_tokens": 40}
    config["generate"]["batch_size"] = 8
    config["data"]["advantage"] = "raw"
    config["data"]["tag"] = "small"
    config["math"] = {"switches": ["keeptrigger", "all"]}
    config["train"] |= {"batch_size": 16, "save_steps": 2, "threads": 1}
    config["cold_start"]["train"] |= {"save_steps": 20, "threads": 1}
    return config | changes


class Copy:
    """A copy of the workflow in a folder of its own, where anything may be broken."""

    def __init__(self, folder: Path, config: dict[str, Any] | None = None):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

        for part in PARTS:
            source = REPOSITORY / part
            if source.is_dir() and not source.is_symlink():
                shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, folder / part, follow_symlinks=False)

        if config is not None:
            self.configure(config)

    @classmethod
    def at(cls, folder: Path) -> "Copy":
        """Return a copy that exists already."""
        copy = cls.__new__(cls)
        copy.folder = folder
        return copy

    def configure(self, config: dict[str, Any]) -> None:
        """Write config.yaml."""
        (self.folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))

    def start(self, *arguments: str) -> subprocess.Popen:
        """Start Snakemake in a process group of its own, as from a terminal."""
        command = [sys.executable, "-m", "snakemake", "--profile", "local", *arguments]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )

    def snakemake(self, *arguments: str, fails: bool = False) -> str:
        """Run Snakemake, check how it ends, and return what it printed."""
        process = self.start(*arguments)
        output, _ = process.communicate()
        assert (process.returncode != 0) == fails, output[-6000:]
        return output

    def run(self, *arguments: str) -> str:
        """Run a stage by hand and return what it printed."""
        command = [sys.executable, "-m", *arguments]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=True).stdout

    def path(self, name: str) -> Path:
        """Return a path below the default experiment's run."""
        return self.folder / "runs/arithmetic" / name

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace a text in a file of the copy, which must be there."""
        path = self.folder / file
        text = path.read_text()
        assert old in text, f"{file} has no {old!r}"
        path.write_text(text.replace(old, new))


# ---------------------------------------------------------------- what Snakemake printed


def jobs(output: str) -> set[str]:
    """Return the rules that a dry run would run."""
    table = output.rsplit("Job stats:", 1)[-1]
    return {line.split()[0] for line in table.splitlines() if re.fullmatch(r"\w+\s+\d+", line)} - {"total"}


def outputs(output: str, rule: str) -> list[str]:
    """Return the first output of each job of a rule in a dry run."""
    return re.findall(rf"rule {rule}:\n    input: .*\n    output: ([^,\s]+)", output)


def scored(output: str) -> set[str]:
    """Return the log-prob folders, below data/, that a dry run would fill."""
    return set(re.findall(r"output: \S+/data/(\S+)/[12]_0\.pkl", output))


def in_ledger(log: str) -> tuple[int, int]:
    """Return (records that were in the ledger, all records) of a stage, by its log."""
    match = re.search(r"(\d+) of (\d+) records are in the ledger", log)
    assert match, log
    return int(match[1]), int(match[2])


# ---------------------------------------------------------------- frozen prompts


def edit_prompts(copy: Copy, change: Callable[[Any], Any], split: str = "train") -> None:
    """Edit the frozen prompts of a split by hand: `change` receives and returns a pandas.DataFrame."""
    import pandas as pd

    path = copy.path(f"prompts/{split}.parquet")
    change(pd.read_parquet(path)).to_parquet(path)


# ---------------------------------------------------------------- processes


def kill(process: subprocess.Popen) -> None:
    """Kill a process group with signal 9, as a machine that goes down does."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(
    condition: Callable[[], Any], process: subprocess.Popen | None = None, seconds: float = 600, pause: float = 0.02
) -> None:
    """Wait until a condition holds; if a process is given, it must run meanwhile. `pause` is between two looks."""
    deadline = time.monotonic() + seconds

    while not condition():
        assert process is None or process.poll() is None, process.communicate()[0][-4000:]
        assert time.monotonic() < deadline, f"the condition did not hold within {seconds} s"
        time.sleep(pause)
