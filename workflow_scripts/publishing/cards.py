"""Write the cards of a published model and of its training data, as the Hugging Face hub reads them."""

from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from workflow_scripts.core.files import write_text
from workflow_scripts.core.templates import TEMPLATES
from workflow_scripts.overview.words import duration
from workflow_scripts.publishing.facts import UNKNOWN, Facts

HERE = Path(__file__).parent

Metrics = dict[str, tuple[str, str]]


def write_cards(facts: Facts, metrics: Metrics, parameters: int, rows: dict[str, int], folder: Path) -> None:
    """Write README.md into the folders `model` and `data`.

    Args:
        facts: what is known about the run.
        metrics: the task's metrics: name → (label, format).
        parameters: of the model.
        rows: the number of rows by split.
        folder: the folder of the published round.
    """
    name = facts.config.get("name", facts.folder.name)
    values: dict[str, Any] = {
        "facts": facts,
        "base": facts.base,
        "name": name,
        "parameters": parameters,
        "table": table_of(facts, metrics),
        "levels": levels_of(facts, metrics),
        "template": facts.config.get("template", "deepseek"),
        "templates": TEMPLATES,
        "rows": rows,
        "unknown": UNKNOWN,
        "unknown_licences": facts.unknown_licences(),
    }

    for part, front_matter in (("model", model_front_matter(facts)), ("data", data_front_matter(facts, rows))):
        text = _environment().get_template(f"{part}.md.jinja").render(values)
        header = yaml.safe_dump(front_matter, sort_keys=False, allow_unicode=True)
        write_text(folder / part / "README.md", f"---\n{header}---\n\n{text}")


def model_front_matter(facts: Facts) -> dict[str, Any]:
    """Return the metadata of the model's card."""
    base = facts.base
    on_hub = [row["name"] for row in facts.sources if row["name"].count("/") == 1 and not Path(row["name"]).exists()]
    values = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "license": facts.settings.license,
        "base_model": base["path"] if base["on_hub"] else None,
        "datasets": list(dict.fromkeys(on_hub)),
        "tags": list(filter(None, ["roundhouse", facts.training.get("objective")])),
    }
    return {key: value for key, value in values.items() if value}


def data_front_matter(facts: Facts, rows: dict[str, int]) -> dict[str, Any]:
    """Return the metadata of the data's card, which also tells `datasets` the files of each split."""
    files = [{"split": split, "path": f"data/{split}.parquet"} for split in rows]
    licence = {"license": facts.settings.data_license} if facts.settings.data_license else {}
    configs = [{"config_name": "default", "data_files": files}]
    return licence | {"task_categories": ["text-generation"], "tags": ["roundhouse"], "configs": configs}


def table_of(facts: Facts, metrics: Metrics) -> list[dict[str, str]]:
    """Return the metrics of all questions by round, as text."""
    rows = []
    for number in sorted({row["round"] for row in facts.metrics(list(metrics))}):
        cells = {"round": str(number)}
        questions = ""
        for row in facts.metrics(list(metrics)):
            if row["round"] == number and row["level"] == "all":
                label, form = metrics[row["metric"]]
                cells[label] = with_interval(row, form)
                questions = str(row["n"])
        rows.append(cells | {"questions": questions})
    return rows


def levels_of(facts: Facts, metrics: Metrics) -> list[dict[str, str]]:
    """Return the metrics of the last round by level, as text; none if there is one level only."""
    cells: dict[str, dict[str, str]] = {}
    numbers: dict[str, str] = {}
    for row in facts.metrics(list(metrics)):
        if row["level"] != "all" and row["round"] == facts.last:
            label, form = metrics[row["metric"]]
            level = cells.setdefault(row["level"], {"level": row["level"]})
            level[label] = with_interval(row, form)
            numbers[row["level"]] = str(row["n"])
    rows = [row | {"questions": numbers[level]} for level, row in cells.items()]
    return rows if len(rows) > 1 else []


def with_interval(row: dict[str, Any], form: str) -> str:
    """Return a metric with its 95% interval, if there is one."""
    value = format(row["value"], form)
    return f"{value} ({format(row['low'], form)}–{format(row['high'], form)})" if "low" in row else value


def as_table(rows: list[dict[str, str]]) -> str:
    """Return rows as a Markdown table; a cell that a row lacks is empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    lines += [f"| {' | '.join(row.get(name, '') for name in columns)} |" for row in rows]
    return "\n".join(lines)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"duration": duration, "table": as_table}
    return environment
