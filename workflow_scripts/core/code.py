"""Which code a result depends on, as digests of syntax trees.

A comment or a docstring costs nothing; a changed function reruns the stages that import it. Settings schemas
(`core/config.py`, `core/sections.py` and the like) are left out: what they say reaches a stage as values, which
Snakemake compares anyway.
"""

import ast
import functools
import hashlib
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
ROOT = PACKAGE.parent
VALUES_ONLY = {PACKAGE / f"core/{name}.py" for name in ("config", "sections", "dialogue_sections", "table_sections")}


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


@functools.cache
def _digest(path: Path) -> str:
    tree = _tree(path)  # which loses its docstrings here: nobody else looks at them
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list) or not body:
            continue
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            if ast.get_docstring(node, clean=False) is not None:
                del body[0]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:12]


def _module_file(name: str) -> Path | None:
    path = ROOT.joinpath(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file() and candidate.is_relative_to(PACKAGE):
            return candidate
    return None


@functools.cache
def _imports(path: Path) -> frozenset[Path]:
    """Files of this package that `path` imports, wherever in the file the import stands."""
    names = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(filter(None, map(_module_file, names))) - VALUES_ONLY


@functools.cache
def code_digests(*modules: str) -> dict[str, str]:
    """{file: digest} over the import closure of the named modules (such as "workflow_scripts.train")."""
    todo, seen = [], set()
    for module in modules:
        file = _module_file(module)
        if file is None:
            raise ModuleNotFoundError(f"no module {module} under {PACKAGE}")
        todo.append(file)
    while todo:
        path = todo.pop()
        if path not in seen:
            seen.add(path)
            todo.extend(_imports(path))
    return {str(path.relative_to(ROOT)): _digest(path) for path in sorted(seen)}
