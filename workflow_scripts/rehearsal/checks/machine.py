"""Check that this machine has what the real run needs: packages, keys of endpoints, models and data on the hub."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workflow_scripts import freeze_prompts
from workflow_scripts.config.load import Config
from workflow_scripts.core.running import plugins
from workflow_scripts.rehearsal.findings import Finding
from workflow_scripts.rehearsal.rehearsed import Rehearsed
from workflow_scripts.workflow.environments import GENERAL, Environments
from workflow_scripts.workflow.freezing import is_on_hub
from workflow_scripts.workflow.preflight import LOADING, PACKAGES, lacking

ELSEWHERE = "REHEARSE_ELSEWHERE"  # environment variable: set if the real run will be on another machine


def check(rehearsed: Rehearsed) -> Iterator[Finding]:
    """Yield what is missing here."""
    yield from packages(rehearsed.recipe)
    yield from keys(rehearsed.recipe.model_dump(mode="json"))
    yield from hub(rehearsed)


# ---------------------------------------------------------------- packages


def packages(recipe: Config) -> Iterator[Finding]:
    """Yield the packages that jobs need and their Python lacks."""
    environments = Environments(recipe, str(Path(__file__).resolve().parents[3]), uses_conda=False)
    is_here = runs_here()

    for environment, needed in needed_packages(recipe, environments).items():
        python = environments.python(environment)
        missing = lacking(python, tuple(sorted(needed)))
        if missing is None:
            yield Finding("fail" if is_here else "know", f"python.{environment}", f"{python} does not run.")
            continue
        for name in missing:
            text = f"{python} lacks {name}, which {needed[name]} needs."
            if is_here:
                advice = "Run `make setup-gpu`, name a Python that has it under `python`, or use --sdm conda."
                yield Finding("fail", "packages", text, advice)
            else:
                yield Finding("know", "packages", text, "The run itself will be elsewhere: rehearse there, too.")


def runs_here() -> bool:
    """Return whether the real run may start from this machine: if it has a GPU or Slurm, unless ELSEWHERE is set."""
    if os.environ.get(ELSEWHERE):
        return False
    return bool(shutil.which("sbatch") or shutil.which("nvidia-smi"))


def needed_packages(recipe: Config, environments: Environments) -> dict[str, dict[str, str]]:
    """Return {environment: {package: what needs it}}."""
    needed: dict[str, dict[str, str]] = {GENERAL: dict.fromkeys(PACKAGES, "every stage")}

    trainings = {"train": recipe.train}
    if recipe.cold_start:
        trainings["cold_start.train"] = recipe.cold_start.train
    for place, train in trainings.items():
        packages = (*PACKAGES, *LOADING, *train.packages)
        needed.setdefault(train.environment, {}).update(dict.fromkeys(packages, place))

    of_generation = needed.setdefault(environments.of_generation, {})
    for engine in set(map(recipe.generate.engine_of, recipe.versions)):
        packages = plugins.constants("engines", engine).get("PACKAGES", ())
        of_generation.update(dict.fromkeys(packages, f"engine {engine}"))

    return needed


# ---------------------------------------------------------------- keys and the hub


def keys(value: Any, path: str = "") -> Iterator[Finding]:
    """Yield the keys of endpoints that the environment lacks."""
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from keys(item, f"{path}.{number}")
    if not isinstance(value, dict):
        return

    variable = value.get("key_env")
    if variable and "base_url" in value and not os.environ.get(variable):
        text = f"the environment variable {variable} is not set here; {value['base_url']} needs it."
        yield Finding("know", path, text)
    for name, item in value.items():
        yield from keys(item, f"{path}.{name}".lstrip("."))


def hub(rehearsed: Rehearsed) -> Iterator[Finding]:
    """Yield which models and data sets are neither here nor in the hub's cache."""
    recipe = rehearsed.recipe
    names = {"model.path": recipe.model.path, "reward_model": recipe.reward_model}
    names |= {f"reward.{name}.model": part.model for name, part in recipe.reward_parts.items()}

    for key, name in names.items():
        if name and not Path(name).is_dir() and not is_cached(name):
            text = f"{name} is not here; the run downloads it from the hub."
            yield Finding("know", key, text, "Download it where there is a network, if jobs have none.")

    for split in freeze_prompts.SPLITS:
        for source in rehearsed.sources(split).values():
            if is_on_hub(source.file):
                yield Finding("know", f"prompts.{split}", f"{source.file} is a data set on the hub.")


def is_cached(name: str) -> bool:
    """Return whether the hub's cache has the config of a model."""
    from huggingface_hub import try_to_load_from_cache

    try:
        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    except ValueError:  # no name that the hub could have
        return False
