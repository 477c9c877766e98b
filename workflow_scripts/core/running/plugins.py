"""Modules that a folder offers by name: tasks, engines, objectives and rewards. A new one is a new file.

Some facts about a module are needed before it can be imported: the config is checked on login nodes that may lack
torch. A module states such facts as literal constants at its top level, and `constants` reads them from its source.
"""

import ast
import importlib
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from workflow_scripts.core.errors import BadInput

PACKAGE = Path(__file__).resolve().parents[2]


SHARED = {"defaults", "models"}  # modules that the others of their folder build on, and no plug-ins themselves


@cache
def names(folder: str) -> tuple[str, ...]:
    """Return the names that a folder of workflow_scripts/ offers: one for each file or package in it."""
    plugin_names = set()

    for path in (PACKAGE / folder).iterdir():
        is_module = path.suffix == ".py"
        is_package = (path / "__init__.py").is_file()
        if (is_module or is_package) and not path.name.startswith("_") and path.stem not in SHARED:
            plugin_names.add(path.stem)

    return tuple(sorted(plugin_names))


def check_name(folder: str, name: str) -> str:
    """Return `name` if the folder offers it; else raise BadInput with the names that it does offer."""
    if name not in names(folder):
        kind = folder.rsplit("/", 1)[-1].removesuffix("s")
        raise BadInput(f"there is no {kind} {name!r}; choose from {', '.join(names(folder))}")

    return name


def module_name(folder: str, name: str) -> str:
    """Return the dotted name of a module."""
    return f"workflow_scripts.{folder.replace('/', '.')}.{check_name(folder, name)}"


def load(folder: str, name: str) -> ModuleType:
    """Import the module of this name."""
    return importlib.import_module(module_name(folder, name))


@cache
def constants(folder: str, name: str) -> dict[str, Any]:
    """Return the literal constants at a module's top level, without importing it."""
    check_name(folder, name)
    path = PACKAGE / folder / f"{name}.py"
    tree = ast.parse(path.read_text(), str(path))
    values = {}

    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(target, ast.Name) and node.value is not None:
            try:
                values[target.id] = ast.literal_eval(node.value)
            except ValueError:
                continue  # not a literal: only an import can tell its value

    return values
