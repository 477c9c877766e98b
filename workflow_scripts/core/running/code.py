"""Compute digests of the code that determines a result: the definitions that a stage reaches.

A stage names its roots, such as `workflow_scripts.grade:main` and the part of the task that it uses. From there, every
reference to a function, a class or a constant of this package is followed, through imports too. A definition that no
root reaches determines nothing: a new objective, a new engine or an unused function leaves all results alone.

The digest of a definition covers its syntax tree without what cannot change a result: comments, docstrings, type
annotations of functions, and words for people (arguments of BadInput, of `say` and `print`, `help=` and `desc=`). A
module that counts as a whole does so without `PACKAGES`, since a missing package leads to no result at all.
Four rooms are exempt as a whole: `core/running/` and `workflow/`, which decide how a stage runs, `overview/`, which
shows results and makes none, and `config/` with the sections of the tasks (`tasks/<task>/settings.py`), whose values
are parameters that Snakemake compares. So are two files of `training/` that predict memory and measure it, and
`engines/_resident.py`, which keeps an engine loaded.

What the analysis cannot see is loaded by name (tasks, engines, objectives, rewards). The caller adds it as a root.
A module that mentions its own `__file__`, such as the sandbox that starts itself as a script, is covered as a whole.
"""

import ast
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2]
ROOT = PACKAGE.parent
EXEMPT = (
    *(PACKAGE / room for room in ("core/running", "config", "workflow", "overview")),
    PACKAGE / "training/memory.py",
    PACKAGE / "training/peaks.py",
    PACKAGE / "engines/_resident.py",
)
WORDS = {"say", "print"}  # calls that only speak to people
WORDY_KEYWORDS = {"help", "desc", "unit"}  # arguments that only people read
NEEDS = {"PACKAGES"}  # constants that say what a module needs, and not what it computes

Table = dict[str, dict[str, str]]  # file → definition → digest


@dataclass
class Module:
    """The top level of a source file."""

    path: Path
    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)  # name → the statements that bind it
    imports: dict[str, tuple[str, str | None]] = field(default_factory=dict)  # name → (module, name in it or None)
    effects: list[ast.stmt] = field(default_factory=list)  # statements that do something when the module is imported


def code_identity(*roots: str) -> str:
    """Return 12 hex digits that stand for all code that the roots reach."""
    return table_digest(code_table(*roots))


def table_digest(table: Table) -> str:
    """Return the 12 hex digits that stand for a table of definitions."""
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()[:12]


@cache
def code_table(*roots: str) -> Table:
    """Return the digest of each definition that the roots reach, by file.

    A root is "module:name", or "module" for everything in it.
    """
    reached: dict[Path, set[str]] = {}
    todo = []

    for root in roots:
        module, _, name = root.partition(":")
        if _file_of(module) is None:
            raise ModuleNotFoundError(f"no module {module} under {PACKAGE}")
        todo.append((module, name or None))

    while todo:
        module, name = todo.pop()
        path = _file_of(module)
        if path is not None and not _is_exempt(path):
            todo.extend(_reach(path, name, reached))

    return {
        str(path.relative_to(ROOT)): {name: _definition_digest(path, name) for name in sorted(names)}
        for path, names in sorted(reached.items())
        if names
    }


def _is_exempt(path: Path) -> bool:
    """Return whether a file cannot change a result; the head of this module says which."""
    is_section = path.name == "settings.py" and path.parents[1] == PACKAGE / "tasks"
    return is_section or any(path.is_relative_to(room) for room in EXEMPT)


def _reach(path: Path, name: str | None, reached: dict[Path, set[str]]) -> Iterator[tuple[str, str | None]]:
    """Mark a definition of a file as reached; yield what it refers to. Without a name, mark all definitions."""
    module = _read(path)

    if path not in reached:
        reached[path] = set()
        if module.effects:
            reached[path].add("<module>")
            for statement in module.effects:
                yield from _references(path, statement)

    for definition in module.definitions.keys() - NEEDS if name is None else (name,):
        if definition in module.imports:
            yield module.imports[definition]
        if definition in module.definitions and definition not in reached[path]:
            reached[path].add(definition)
            for statement in module.definitions[definition]:
                yield from _references(path, statement)


@cache
def _references(path: Path, statement: ast.stmt) -> frozenset[tuple[str, str | None]]:
    """Return the (module, name) pairs of this package that a statement refers to; name None is a whole module."""
    module = _read(path)
    own = _module_of(path)
    imports = module.imports | _imports_in(statement)
    references: set[tuple[str, str | None]] = set()
    bases = set()

    for node in ast.walk(statement):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            target, name = imports.get(node.value.id, (None, ""))
            if target is not None and name is None:
                references.add((target, node.attr))
                bases.add(node.value)

    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and node not in bases:
            if node.id == "__file__":  # the module starts itself as a script
                references.add((own, None))
            elif node.id in module.definitions:
                references.add((own, node.id))
            elif node.id in imports:
                references.add(imports[node.id])

    return frozenset(references)


@cache
def _read(path: Path) -> Module:
    """Parse a file and sort its top-level statements, words for people removed."""
    tree = _Plain().visit(ast.parse(path.read_text(), str(path)))
    module = Module(path)

    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            module.definitions.setdefault(statement.name, []).append(statement)
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            module.imports |= _imports_in(statement)
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            for name in _bound_names(statement):
                module.definitions.setdefault(name, []).append(statement)
        elif not _is_never_run(statement):
            module.imports |= _imports_in(statement)
            module.effects.append(statement)

    return module


def _is_never_run(statement: ast.stmt) -> bool:
    """Return whether a top-level `if` is for type checkers, or for the command line, whose root is `main`."""
    if not isinstance(statement, ast.If):
        return isinstance(statement, ast.Pass)

    condition = ast.unparse(statement.test)
    return condition == "TYPE_CHECKING" or condition.startswith("__name__ ==")


def _bound_names(statement: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]


def _imports_in(statement: ast.stmt) -> dict[str, tuple[str, str | None]]:
    """Return the names of this package that the imports within a statement bind."""
    imports: dict[str, tuple[str, str | None]] = {}

    for node in ast.walk(statement):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if _file_of(inner):
                    imports[alias.asname or alias.name] = (inner, None)
                elif _file_of(node.module):
                    imports[alias.asname or alias.name] = (node.module, alias.name)

    return imports


@cache
def _file_of(module: str) -> Path | None:
    """Return the file of a module of this package."""
    path = ROOT.joinpath(*module.split("."))

    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_relative_to(PACKAGE) and candidate.is_file():
            return candidate

    return None


def _module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


# ---------------------------------------------------------------- digests


@cache
def _definition_digest(path: Path, name: str) -> str:
    module = _read(path)
    statements = module.effects if name == "<module>" else module.definitions[name]
    text = "\n".join(map(_canonical, statements))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _canonical(node) -> str:
    """Return a syntax tree as text that is the same under every version of Python."""
    if isinstance(node, ast.AST):
        fields = []
        for name, value in ast.iter_fields(node):
            is_empty = value is None or value == []
            if name not in ("ctx", "kind", "type_comment", "type_params") and not (is_empty and name != "value"):
                fields.append(f"{name}={_canonical(value)}")
        return f"{type(node).__name__}({','.join(fields)})"

    if isinstance(node, list):
        return f"[{','.join(map(_canonical, node))}]"

    return repr(node)


class _Plain(ast.NodeTransformer):
    """Removes what cannot change a result: docstrings, annotations, words for people."""

    def visit_Module(self, node: ast.Module) -> ast.AST:
        return self._without_docstring(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._without_docstring(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self._without_docstring(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        node.returns = None
        return self._without_docstring(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        call = node.value
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in WORDS:
            return ast.Pass()
        return self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        error = node.exc
        if isinstance(error, ast.Call) and isinstance(error.func, ast.Name) and error.func.id == "BadInput":
            return ast.Raise(exc=error.func, cause=None)
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        node.keywords = [keyword for keyword in node.keywords if keyword.arg not in WORDY_KEYWORDS]
        return self.generic_visit(node)

    def _without_docstring(self, node):
        if node.body and isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant):
            if isinstance(node.body[0].value.value, str):
                node.body[0] = ast.Pass()
        return self.generic_visit(node)
