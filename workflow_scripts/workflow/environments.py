"""The Python environments of rules, by name: `roundhouse` for most, and one for each part with packages of its own.

An engine declares its environment (`ENVIRONMENT` in engines/<engine>.py), and so do the sections of the config for
training (`Train.environment`). With `--sdm conda`, Snakemake builds envs/<name>.yaml. Without conda, the jobs run the
Python that the config names (`python: {<name>: PATH}`), or `.venv-<name>`, which `make setup-gpu` builds, or else the
Python that runs Snakemake.
"""

import os
import shlex
import sys
from pathlib import Path

from workflow_scripts.config.load import Config
from workflow_scripts.core.running import plugins

GENERAL = "roundhouse"


class Environments:
    """The environments that a config's rules run in."""

    def __init__(self, cfg: Config, basedir: str, uses_conda: bool):
        self.cfg = cfg
        self.basedir = basedir
        self.uses_conda = uses_conda

    @property
    def of_generation(self) -> str:
        """The name of the environment of all rules that generate answers."""
        used = map(self.cfg.generate.engine_of, self.cfg.versions)
        named = (plugins.constants("engines", engine).get("ENVIRONMENT") for engine in used)
        return next(filter(None, named), GENERAL)

    def conda_file(self, name: str = GENERAL) -> str:
        """Return the path of a conda environment, escaped because Snakemake formats it."""
        path = f"{self.basedir}/envs/{name}.yaml"
        return path.replace("{", "{{").replace("}", "}}")

    def own_python(self, name: str) -> str | None:
        """Return the Python of an environment, or None if jobs find theirs as `python`."""
        if name == GENERAL or self.uses_conda:
            return None
        if name in self.cfg.python:
            return os.path.expanduser(self.cfg.python[name])

        built_here = Path(self.basedir, f".venv-{name}/bin/python")
        return str(built_here) if built_here.exists() else None

    def python(self, name: str) -> str:
        """Return the Python of an environment, without conda."""
        return self.own_python(name) or sys.executable

    def command(self, name: str) -> str:
        """Return the beginning of a shell command: the Python of an environment, with its programs on the path."""
        own = self.own_python(name)
        if own is None:
            return "python"

        folder = shlex.quote(str(Path(own).parent))
        command = f'env PATH={folder}:"$PATH" {shlex.quote(own)}'
        return command.replace("{", "{{").replace("}", "}}")
