"""Shared by all tests: the repository, small configs, and a way to run real Snakemake on a copy of it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conversations import tokenizers  # noqa: F401  a fixture
from filelock import FileLock

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


def tiny_config(**changes) -> dict:
    """The default experiment with a model and numbers that take seconds. It learns nothing."""
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
    config["data"]["tag"] = "keeptrigger_all"
    config["train"] |= {"batch_size": 16, "save_steps": 2, "threads": 1}
    config["cold_start"]["train"] |= {"save_steps": 20, "threads": 1}
    return config | changes


class Copy:
    """A copy of the workflow in a folder of its own, where anything may be broken."""

    def __init__(self, folder: Path, config: dict | None = None):
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
    def at(cls, folder: Path):
        """A copy that exists already."""
        copy = cls.__new__(cls)
        copy.folder = folder
        return copy

    def configure(self, config: dict) -> None:
        (self.folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))

    def start(self, *arguments: str) -> subprocess.Popen:
        """Snakemake in a process group of its own, as from a terminal."""
        command = [sys.executable, "-m", "snakemake", "--profile", "local", *arguments]
        return subprocess.Popen(
            command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True, env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )  # fmt: skip

    def snakemake(self, *arguments: str, fails: bool = False) -> str:
        process = self.start(*arguments)
        output, _ = process.communicate()
        assert (process.returncode != 0) == fails, output[-6000:]
        return output

    def run(self, *arguments: str) -> str:
        """A stage by hand."""
        result = subprocess.run(
            [sys.executable, "-m", *arguments], cwd=self.folder, capture_output=True, text=True, check=True
        )
        return result.stdout

    def path(self, name: str) -> Path:
        return self.folder / "runs/arithmetic" / name


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Copy:
    """A finished round 1 of the tiny experiment. Tests that change something work on `fork` instead."""
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if os.environ.get("PYTEST_XDIST_WORKER") else folder) / "finished"
    with FileLock(f"{folder}.lock"):  # the first of pytest's processes makes it, and the others wait
        if not (folder / "output.txt").exists():
            output = Copy(folder, tiny_config()).snakemake("round1_checkpoint")
            (folder / "output.txt").write_text(output)
    return Copy.at(folder)


@pytest.fixture
def fork(finished, tmp_path) -> Copy:
    """The finished run, to be changed at will, with Snakemake's own records."""
    shutil.copytree(finished.folder, tmp_path / "fork", symlinks=True)
    return Copy.at(tmp_path / "fork")
