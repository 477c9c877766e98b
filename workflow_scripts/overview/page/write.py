"""Put the page of a run together: facts, charts and answers in one HTML file that needs no network."""

import base64
import gzip
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from workflow_scripts.core.files import write_text
from workflow_scripts.overview.page import charts, facts
from workflow_scripts.overview.page.answers import distributions, side_by_side
from workflow_scripts.overview.page.facts import Row
from workflow_scripts.overview.page.graph import drawing_of
from workflow_scripts.overview.page.tokens import add_tokens
from workflow_scripts.overview.words import duration

HERE = Path(__file__).parent
LIBRARIES = ("vega/vega.js", "vega-lite/vega-lite.js", "vega-embed/vega-embed.js")  # in the order of their needs
SHARE_OF_EVAL = 0.7  # of the answers on the page

Metrics = dict[str, tuple[str, str]]


def write_page(folder: Path, metrics: Metrics, output: Path, most_answers: int) -> None:
    """Write the page of the run in `folder`, with at most `most_answers` answers."""
    evaluated = facts.metrics_of(folder, list(metrics))
    drawn = charts_of(folder, metrics, evaluated)
    answers = answers_of(folder, most_answers)
    graph = facts.stages_of_run(folder)

    page = rendered(
        "page.html.jinja",
        run=str(folder),
        table=table_of(evaluated, metrics),
        changes=changes_of(folder, metrics),
        charts={name: [spec["title"] for spec in specs] for name, specs in drawn.items()},
        flow=facts.flow_of(folder),
        cost=facts.cost_of(folder),
        usage=facts.usage_of(folder),
        graph=drawing_of(graph) if graph and graph["stages"] else None,
        checkpoints=facts.checkpoints_of(folder),
        settings=json.dumps(facts.settings_of_run(folder), indent=2, ensure_ascii=False),
        versions=facts.versions_of(folder) | own_versions(),
        sets={name: {"shown": len(part["questions"]), "all": part["all"]} for name, part in answers.items()},
        data=packed(json.dumps({"charts": drawn, "answers": answers}, ensure_ascii=False, separators=(",", ":"))),
    )
    write_text(output, page)


def rendered(template: str, **values: Any) -> str:
    """Return a page by its template, with style, script and libraries."""
    environment = Environment(
        loader=FileSystemLoader(HERE), undefined=StrictUndefined, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["duration"] = duration
    return environment.get_template(template).render(
        style=(HERE / "page.css").read_text(),
        script=(HERE / "page.js").read_text(),
        libraries=packed("\n;\n".join(map(library, LIBRARIES))),
        **values,
    )


def charts_of(folder: Path, metrics: Metrics, evaluated: list[Row]) -> dict[str, list[charts.Spec]]:
    """Return the charts of each section. Sections without data have none."""
    measured = {row["metric"] for row in evaluated}
    rewards, lengths, ends = distributions(folder)
    training = facts.training_of(folder)
    cost = facts.cost_of(folder)

    of_training = [charts.ratios(training)] if any("ratio_p50" in row for row in training) else []
    of_training += [charts.trained(name, training) for name in facts.TRAINED if any(name in row for row in training)]

    return {
        "metrics": [charts.metric(name, *metrics[name], evaluated) for name in metrics if name in measured],
        "rewards": [charts.rewards(rewards), charts.lengths(lengths), charts.ends(ends)] if rewards else [],
        "training": of_training,
        "cost": [charts.cost(cost)] if cost else [],
    }


def answers_of(folder: Path, most: int) -> dict[str, Row]:
    """Return the questions with their answers by round: those of the evaluation, and those of the rounds."""
    parts = {}
    share = int(most * SHARE_OF_EVAL)

    for name, place, limit in (("evaluation", "evaluation", share), ("rounds", "results", most - share)):
        questions, total = side_by_side(folder, place, limit)
        if questions:
            if place == "results":
                add_tokens(folder, questions)
            rounds = sorted({number for question in questions for number in question["rounds"]})
            columns = [(str(number), f"round {number}") for number in rounds]
            parts[name] = {"questions": questions, "all": total, "columns": columns}
    return parts


def table_of(evaluated: list[Row], metrics: Metrics) -> dict[str, Any]:
    """Return the table of the first two metrics by round and level, as texts."""
    levels = list(dict.fromkeys(row["level"] for row in evaluated))
    values = {(row["round"], row["level"], row["metric"]): row for row in evaluated}
    shown = list(metrics.items())[:2]
    lines = []

    for number in dict.fromkeys(row["round"] for row in evaluated):
        cells = []
        for level in levels:
            parts = []
            for name, (_, form) in shown:
                row = values.get((number, level, name))
                parts.append(f"{row['value']:{form}}" if row else "–")
            cells.append(" / ".join(parts))
        lines.append((number, cells))

    return {"levels": levels, "lines": lines, "labels": " / ".join(label for _, (label, _) in shown)}


def changes_of(folder: Path, metrics: Metrics) -> dict[int, Row]:
    """Return how the first metric changed in each round, with `text`: the change in the metric's own format."""
    name, (_, form) = next(iter(metrics.items()))
    changes = facts.changes_of(folder, name)
    return {number: row | {"text": f"{row['difference']:+{form}}"} for number, row in changes.items()}


def own_versions() -> dict[str, str]:
    """Return the versions of the programs that made the page."""
    return {"python": platform.python_version(), "snakemake": version("snakemake")}


def library(name: str) -> str:
    """Return a library's text, as Snakemake has it for its own reports."""
    from snakemake.assets import Assets

    return Assets.get_content(name)


def packed(text: str) -> str:
    """Return a text so that it takes little space in HTML; `page.js` unpacks it."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()
