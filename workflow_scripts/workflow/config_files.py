"""Look for keys that come twice in the files of a config. YAML would silently take the last one."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError


def check(files: Iterable[str | Path]) -> None:
    """Raise WorkflowError with all keys that come twice, and their lines."""
    faults = [fault for file in dict.fromkeys(map(str, files)) for fault in repeated_keys(file)]
    if faults:
        raise WorkflowError("\n".join(faults))


def repeated_keys(file: str) -> list[str]:
    """Return a sentence for each key of a YAML file that comes twice in one section."""
    if Path(file).suffix == ".json" or not Path(file).is_file():
        return []
    try:
        root = yaml.compose(Path(file).read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError):  # Snakemake reads the file too, and reports it
        return []
    return list(_repeated(file, root, "")) if root else []


def _repeated(file: str, node: yaml.Node, path: str) -> Iterator[str]:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _repeated(file, item, path)
    if not isinstance(node, yaml.MappingNode):
        return

    lines: dict[str, int] = {}
    for key, value in node.value:
        name = ".".join(filter(None, (path, str(key.value))))
        line = key.start_mark.line + 1
        if name in lines and key.value != "<<":
            yield f"{file}, line {line}: the key `{name}` comes twice (see line {lines[name]}); keep one of them"
        lines[name] = line
        yield from _repeated(file, value, name)
