"""Generate the reference: a page of all config keys, from the schema, and one of all commands, from their --help.

The meaning of a key is the comment beside it in the source of its section, or above it; else the one in config.yaml.
"""

import ast
import contextlib
import importlib
import importlib.util
import inspect
import io
import re
import sys
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic_core import PydanticUndefined

from workflow_scripts.config.load import Config
from workflow_scripts.config.sections import Section
from workflow_scripts.config.sections.values import neutral_value
from workflow_scripts.config.task_section import section_of
from workflow_scripts.core.running import plugins

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "workflow_scripts"
NO_COMMANDS = ("sandbox.py", "workers.py", "launch.py")  # started by the program itself
FIRST = ("init", "plan", "status", "trace", "report", "page", "verify", "updates", "accept_code")  # typed by people


def pages() -> dict[str, str]:
    """Return the pages of the reference by name."""
    return {"reference/config.md": config_page(), "reference/commands.md": commands_page()}


# ---------------------------------------------------------------- the config


def config_page() -> str:
    """Return the page of all config keys."""
    parts = [
        "# Every config key",
        "",
        "This page is generated from the schema. A key that is left out has its default; *required* keys have none. "
        "`snakemake -n` reports all wrong keys at once. On the command line, a nested key is set by "
        "`--config 'train={lr: 1e-5}'`.",
        "",
        *section_lines("", Config, set()),
    ]
    for task in plugins.names("tasks"):
        section = section_of(task)
        if section.model_fields:
            parts += [f"## {task}", "", f"*Section of the task `{task}`.* {first_line(section)}", ""]
            parts += section_table(task, section)
            for path, inner in nested(task, section, set()):
                parts += [f"### {path}", "", first_line(inner), "", *section_table(path, inner)]
    return "\n".join(parts)


def section_lines(path: str, section: type[Section], seen: set[type]) -> list[str]:
    """Return the tables of a section and of all sections below it."""
    lines = ["## General keys", "", *section_table(path, section)]
    for inner_path, inner in nested(path, section, seen):
        level = "##" if "." not in inner_path else "###"
        lines += [f"{level} {inner_path}", "", first_line(inner), "", *section_table(inner_path, inner)]
    return lines


def nested(path: str, section: type[Section], seen: set[type]) -> list[tuple[str, type[Section]]]:
    """Return all sections below a section with their paths; each class once, at its first path."""
    found = []
    for name, field in section.model_fields.items():
        for inner in sections_in(field.annotation):
            if inner not in seen:
                seen.add(inner)
                inner_path = ".".join(filter(None, (path, name)))
                found += [(inner_path, inner), *nested(inner_path, inner, seen)]
    return found


def sections_in(annotation: Any) -> list[type[Section]]:
    """Return all sections that an annotation contains."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for part in get_args(annotation) for section in sections_in(part)]


def section_table(path: str, section: type[Section]) -> list[str]:
    """Return the table of a section's keys."""
    comments = comments_of(section)
    schema = section.model_json_schema(mode="validation")
    lines = ["| key | values | default | meaning |", "|---|---|---|---|"]

    for name, field in section.model_fields.items():
        shown = shown_values(schema["properties"][name])
        meaning = comments.get(name) or comment_in_config(".".join(filter(None, (path, name)))) or ""
        lines.append(f"| `{name}` | {cell(shown)} | {cell(default_of(field))} | {cell(meaning)} |")
    return [*lines, ""]


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def default_of(field: Any) -> str:
    """Return the default of a key as YAML."""
    if field.is_required():
        return "*required*"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Section):
        return "see below"
    text = yaml.safe_dump(plain(value), default_flow_style=True, width=1000).strip().removesuffix("...").strip()
    neutral = neutral_value(field)
    note = f" (before this key existed: `{neutral}`)" if neutral not in (value, PydanticUndefined) else ""
    return f"`{text}`{note}"


def plain(value: Any) -> Any:
    """Return a value with builtin types only."""
    if isinstance(value, Section):
        return value.model_dump(mode="json")
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def shown_values(schema: dict[str, Any]) -> str:
    """Return the values that a key takes, in words, from its JSON schema."""
    if "$ref" in schema:
        return "section"
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    for union in ("anyOf", "oneOf"):
        if union in schema:
            shown = [shown_values(part) for part in schema[union]]
            return " or ".join(dict.fromkeys(shown))
    kind = schema.get("type")
    if kind == "array":
        return f"list of {shown_values(schema.get('items', {}))}"
    if kind == "object":
        values = schema.get("additionalProperties")
        return f"mapping to {shown_values(values)}" if isinstance(values, dict) else "mapping"
    if kind in ("integer", "number"):
        return " ".join(filter(None, (kind, bounds(schema))))
    return {"string": "text", "boolean": "`true` or `false`", "null": "`null`"}.get(str(kind), "any")


def bounds(schema: dict[str, Any]) -> str:
    """Return the bounds of a number in words."""
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return ", ".join(f"{sign} {schema[name]:g}" for name, sign in signs.items() if name in schema)


def first_line(section: type[Section]) -> str:
    """Return the docstring of a section."""
    return inspect.cleandoc(section.__doc__ or "")


def comments_of(section: type[Section]) -> dict[str, str]:
    """Return the comments of a section's fields, its bases included: beside the field, else above it."""
    comments: dict[str, str] = {}
    for base in reversed(section.__mro__):
        if issubclass(base, Section) and base is not Section:
            comments |= own_comments(base)
    return comments


def own_comments(section: type[Section]) -> dict[str, str]:
    """Return the comments of the fields that a class itself defines."""
    try:
        source = inspect.getsource(section)
    except (OSError, TypeError):  # a class that is made while the program runs
        return {}

    lines = inspect.cleandoc("\n" + source).splitlines() if source.startswith(" ") else source.splitlines()
    [body] = ast.parse("\n".join(lines)).body
    comments = {}
    for node in getattr(body, "body", []):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            beside = [comment_at(line) for line in lines[node.lineno - 1 : node.end_lineno]]
            text = " ".join(filter(None, beside)) or comment_above(lines, node.lineno - 2)
            if text:
                comments[node.target.id] = text
    return comments


def comment_at(line: str) -> str:
    """Return the comment at the end of a line; "" if there is none."""
    match = re.search(r"\s#\s(?!noqa|type: ignore)(.*)$", line)
    return match[1].strip() if match else ""


def comment_above(lines: list[str], last: int) -> str:
    """Return the block of comments that ends at a line."""
    block: list[str] = []
    while last >= 0 and lines[last].strip().startswith("#"):
        block.insert(0, lines[last].strip().removeprefix("#").strip())
        last -= 1
    return " ".join(block)


def comment_in_config(path: str) -> str | None:
    """Return the comment beside a key in config.yaml."""
    return _config_comments().get(path)


def _config_comments() -> dict[str, str]:
    comments = {}
    above: list[tuple[int, str]] = []
    for line in (REPOSITORY / "config.yaml").read_text().splitlines():
        match = re.match(r"( *)([\w]+):", line)
        if not match:
            continue
        indent = len(match[1])
        above = [(depth, key) for depth, key in above if depth < indent] + [(indent, match[2])]
        if comment := comment_at(line):
            comments[".".join(key for _, key in above)] = comment
    return comments


# ---------------------------------------------------------------- commands


def commands_page() -> str:
    """Return the page of all commands with their --help."""
    modules = command_modules()
    typed = [f"workflow_scripts.{name}" for name in FIRST]
    others = [module for module in modules if module not in typed]
    lines = [
        "# Every command",
        "",
        "This page is generated from `--help`. The first commands are for you to type. The stages after them are run "
        "by rules of the workflow, and can be run by hand too.",
        "",
    ]
    for title, group in (("Commands to type", typed), ("Stages", others)):
        lines += [f"## {title}", ""]
        for module in group:
            lines += [
                f"### {module.removeprefix('workflow_scripts.')}",
                "",
                "```text",
                help_of(module).strip(),
                "```",
                "",
            ]
    return "\n".join(lines)


def command_modules() -> list[str]:
    """Return the modules that are commands."""
    paths = sorted(PACKAGE.rglob("*.py"))
    return [
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
        for path in paths
        if '__name__ == "__main__"' in path.read_text() and path.name not in NO_COMMANDS
    ]


def help_of(module: str) -> str:
    """Return what `python -m MODULE --help` prints."""
    loaded = importlib.import_module(module)
    main = sys.modules["__main__"]
    before = sys.argv, getattr(main, "__spec__", None)
    printed = io.StringIO()

    try:
        sys.argv = [str(loaded.__file__), "--help"]
        main.__spec__ = importlib.util.find_spec(module)
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            loaded.main()
    finally:
        sys.argv, main.__spec__ = before
    return printed.getvalue()
