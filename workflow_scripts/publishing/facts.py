"""Collect what the cards of a published round say, from the manifests of its run."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import yaml

from workflow_scripts.config.sections import Publish, Train, settings_of
from workflow_scripts.core.files import read_json
from workflow_scripts.core.running import hub
from workflow_scripts.core.running.manifest import manifest_of
from workflow_scripts.core.sources import is_on_hub
from workflow_scripts.overview.page import facts as run_facts
from workflow_scripts.overview.page.facts import Row

UNKNOWN = "unknown"


class Facts:
    """What is known about a run up to one of its rounds."""

    def __init__(self, folder: Path, task: str, last: int, settings: Publish, data_files: dict[str, Path]):
        """Prepare to read a run.

        Args:
            folder: the run's folder.
            task: the name of the task.
            last: the round that is published.
            settings: the config's section `publish`.
            data_files: the data of all trainings up to this round, by the name of the split.
        """
        self.folder = folder
        self.last = last
        self.task = task
        self.settings = settings
        self.data_files = data_files
        self.config = run_facts.settings_of_run(folder)

    # ------------------------------------------------------------ where it comes from

    @property
    def base(self) -> Row:
        """The model that round 0 starts from: its path or None, its commit, and its licence."""
        manifest = read_json(self.folder / "checkpoints/init/checkpoint.json")
        path = manifest["settings"].get("path")
        commit = manifest.get("commits", {}).get(path) or manifest["settings"].get("revision")
        on_hub = bool(path) and not Path(path).is_dir()
        licence = self.licence(path) if path else None
        return {"path": path, "on_hub": on_hub, "commit": commit, "digest": manifest["digest"], "licence": licence}

    @property
    def checkpoints(self) -> list[Row]:
        """Digest, start, rows and updates of the checkpoints up to the last round."""
        return [row for row in run_facts.checkpoints_of(self.folder) if row["round"] <= self.last]

    @property
    def sources(self) -> list[Row]:
        """The files and data sets that questions and existing rows come from, with digests and licences."""
        rows = []

        for manifest in self._manifests():
            own = manifest["settings"]
            parts = {name: own.get(name) for name in ("train", "eval", "pool", "source")} | {"cold_start": own}
            for use, part in parts.items():
                for source in _sources_in(part):
                    commit = manifest.get("commits", {}).get(source["file"]) or source.get("revision")
                    digest = manifest.get("inputs", {}).get(source["file"])
                    row = {"use": use.replace("_", " "), "name": source["file"], "subset": source.get("subset")}
                    rows.append(row | {"commit": commit, "sha256": digest, "licence": self.licence(source["file"])})

        return list({(row["use"], row["name"], row["subset"]): row for row in rows}.values())

    def _manifests(self) -> list[Row]:
        names = sorted(self.folder.glob("prompts/*.json"))
        names += sorted(path for path in self.folder.glob("data/*.json") if "." not in path.stem)
        return [manifest for manifest in map(read_json, names) if "settings" in manifest]

    def licence(self, name: str) -> str:
        """Return the licence of a model or of data: as the config says, else as its README.md on this machine says."""
        if name in self.settings.licences:
            return self.settings.licences[name]

        folder = Path(name) if Path(name).is_dir() else Path(name).parent
        cards = [folder / "README.md"] if Path(name).exists() else []
        if is_on_hub(name):
            for kind in ("models", "datasets"):
                cards += hub.cache_folder().glob(f"{kind}--{name.replace('/', '--')}/snapshots/*/README.md")
        licences = filter(None, map(licence_of_card, cards))
        return next(licences, UNKNOWN)

    def unknown_licences(self) -> list[str]:
        """Return the names whose licence is unknown."""
        base = self.base
        named = [(base["path"], base["licence"])] if base["path"] else []
        named += [(row["name"], row["licence"]) for row in self.sources]
        return list(dict.fromkeys(name for name, licence in named if licence == UNKNOWN))

    # ------------------------------------------------------------ how it was made

    @property
    def training(self) -> Row:
        """The settings of the last round's training that differ from their defaults, with objective and lr."""
        manifest = read_json(self.folder / f"checkpoints/r{self.last}/checkpoint.json") if self.last else {}
        values = {name: value for name, value in manifest.get("settings", {}).items() if name in Train.model_fields}
        if not values:
            return {}
        section = Train.model_validate(values)
        return {"objective": section.objective, "lr": section.lr} | settings_of(section)

    @property
    def data(self) -> list[Row]:
        """Rows, digest and kinds of the training data, by split."""
        rows = []
        for split, path in self.data_files.items():
            manifest = read_json(manifest_of(path))
            row = {"split": split, "rows": manifest["rows"], "sha256": manifest["sha256"]}
            rows.append(row | {"kinds": manifest.get("kinds", {})})
        return rows

    @property
    def seconds(self) -> dict[str, float]:
        """The seconds of all jobs up to the last round, by stage."""
        total: dict[str, float] = defaultdict(float)
        for row in run_facts.cost_of(self.folder):
            if row["round"] <= self.last:
                total[row["stage"]] += row["seconds"]
        return dict(total)

    @property
    def usage(self) -> dict[str, float]:
        """Sampled tokens, and requests and money where endpoints were called, up to the last round."""
        return run_facts.usage_of(self.folder, self.last)

    @property
    def config_text(self) -> str:
        """The run's config as YAML."""
        return yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True, width=110).strip()

    # ------------------------------------------------------------ what it can do

    def metrics(self, names: list[str]) -> list[Row]:
        """Return the metrics of all questions, and at the last round those of each level."""
        rows = [row for row in run_facts.metrics_of(self.folder, names) if row["round"] <= self.last]
        return [row for row in rows if row["level"] == "all" or row["round"] == self.last]


def licence_of_card(card: Path) -> str | None:
    """Return the licence that the front matter of a README.md states, or None."""
    if not card.is_file():
        return None

    match = re.match(r"---\s*\n(.*?)\n---\s*(?:\n|$)", card.read_text(encoding="utf-8", errors="replace"), re.S)
    try:
        values = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError:
        return None
    licence = values.get("license") if isinstance(values, dict) else None
    return ", ".join(licence) if isinstance(licence, list) else licence


def _sources_in(part: Any) -> list[Row]:
    """Return the sections with a file that a section of the config holds: itself, or several by name."""
    if not isinstance(part, dict):
        return []
    if "file" in part:
        return [part] if part["file"] else []
    return [source for value in part.values() for source in _sources_in(value)]
