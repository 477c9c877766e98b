"""The local files that benchmark suites are made from, as inputs of their jobs."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from snakemake.exceptions import WorkflowError

from workflow_scripts.config.sections import Suite


def suite_files(suite: Suite) -> list[str]:
    """Return the file of a suite's task, and the files that it names: data, functions, and what it includes."""
    if not suite.file or not os.path.isfile(suite.file):
        return []

    folder = Path(suite.file).parent
    modules: list[str] = []

    def function(loader: Any, suffix: str, node: Any) -> None:
        """Note the file of a function: `!function utils.score` names utils.py beside the task."""
        modules.append(str(folder / f"{str(node.value).rpartition('.')[0]}.py"))

    loader = type("Loader", (yaml.SafeLoader,), {})
    loader.add_multi_constructor("!", function)
    with open(suite.file) as file:
        try:
            task = yaml.load(file, loader)
        except yaml.YAMLError as error:
            raise WorkflowError(f"evaluate.suites: {suite.file} is not YAML ({error})") from None
    if not isinstance(task, dict):
        raise WorkflowError(f"evaluate.suites: {suite.file} holds no task: a mapping with the key `task` is needed")

    included = [str(folder / task["include"])] if isinstance(task.get("include"), str) else []
    data = texts_in((task.get("dataset_kwargs") or {}).get("data_files"))
    return list(dict.fromkeys(filter(os.path.isfile, [suite.file, *modules, *included, *data])))


def texts_in(value: Any) -> Iterator[str]:
    """Yield the texts within nested lists and mappings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from texts_in(item)
