"""Put a page together that compares several runs: metrics, answers side by side, cost, and differing config keys."""

import json
from pathlib import Path
from typing import Any

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import write_text
from workflow_scripts.overview.page import charts, facts
from workflow_scripts.overview.page.answers import chosen_questions, questions_of
from workflow_scripts.overview.page.facts import Row
from workflow_scripts.overview.page.write import Metrics, packed, rendered

MOST_COLUMNS = 6  # of answers side by side; beyond that, each run has its last round only


def write_comparison(folders: list[Path], metrics: Metrics, output: Path, most_answers: int) -> None:
    """Write the page that compares the runs in `folders`, with at most `most_answers` answers.

    Raise BadInput if two runs have one name.
    """
    names = [folder.name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    if len(set(names)) < len(names):
        raise BadInput(f"--run: the same run is named twice: {', '.join(names)}")

    runs = dict(zip(names, folders))
    evaluated = {name: facts.metrics_of(folder, list(metrics)) for name, folder in runs.items()}
    seconds = [row | {"run": name} for name, folder in runs.items() for row in facts.cost_of(folder)]
    drawn = {
        "metrics": [charts.compared(name, *metrics[name], evaluated) for name in metrics if _has(evaluated, name)],
        "cost": [charts.compared_cost(seconds)] if seconds else [],
    }
    answers = answers_of(runs, most_answers)

    page = rendered(
        "comparison.html.jinja",
        names=names,
        folders=[str(folder) for folder in folders],
        table=table_of(evaluated, metrics),
        sets={name: {"shown": len(part["questions"]), "all": part["all"]} for name, part in answers.items()},
        differences=differences_of({name: facts.settings_of_run(folder) for name, folder in runs.items()}),
        data=packed(json.dumps({"charts": drawn, "answers": answers}, ensure_ascii=False, separators=(",", ":"))),
    )
    write_text(output, page)


def _has(evaluated: dict[str, list[Row]], metric: str) -> bool:
    return any(row["metric"] == metric for rows in evaluated.values() for row in rows)


def table_of(evaluated: dict[str, list[Row]], metrics: Metrics) -> dict[str, Any]:
    """Return the metrics of the last evaluated round of each run, as texts."""
    lines = []
    has_intervals = False

    for name, rows in evaluated.items():
        last = max((row["round"] for row in rows), default=None)
        own = {row["metric"]: row for row in rows if row["round"] == last and row["level"] == "all"}
        cells = []
        for metric, (_, form) in metrics.items():
            row = own.get(metric)
            text = f"{row['value']:{form}}" if row else "–"
            if row and "low" in row:
                has_intervals = True
                text += f" ({row['low']:{form}}–{row['high']:{form}})"
            cells.append(text)
        if own:
            lines.append({"run": name, "round": last, "cells": cells, "n": next(iter(own.values()))["n"]})

    return {
        "labels": [label for label, _ in metrics.values()],
        "lines": lines,
        "has_intervals": has_intervals,
        "is_same_size": len({line["n"] for line in lines}) <= 1,
    }


def answers_of(runs: dict[str, Path], most: int) -> dict[str, Row]:
    """Return the eval questions that all runs answer, with their answers by run and round."""
    by_run = {name: questions_of(folder, "evaluation") for name, folder in runs.items()}
    rounds = {
        name: sorted({n for question in own.values() for n in question["rounds"]}) for name, own in by_run.items()
    }
    if not all(rounds.values()):
        return {}

    if sum(map(len, rounds.values())) > MOST_COLUMNS:
        rounds = {name: numbers[-1:] for name, numbers in rounds.items()}
    columns = [(f"{name} {n}", f"{name}, round {n}") for name, numbers in rounds.items() for n in numbers]

    merged = []
    first = next(iter(by_run.values()))
    for key, question in first.items():
        if not all(key in own and own[key]["question"] == question["question"] for own in by_run.values()):
            continue
        answers = {
            f"{name} {n}": own[key]["rounds"][n]
            for name, own in by_run.items()
            for n in rounds[name]
            if n in own[key]["rounds"]
        }
        merged.append(question | {"rounds": answers})

    if not merged:
        return {}
    chosen = chosen_questions(merged, most)
    return {"evaluation": {"questions": chosen, "all": len(merged), "columns": columns}}


def differences_of(settings: dict[str, Row]) -> dict[str, list[str]]:
    """Return the config keys whose values differ, with the value in each run; – stands for the default."""
    flat = {name: dict(_leaves(values)) for name, values in settings.items()}
    keys = dict.fromkeys(key for values in flat.values() for key in values)
    differences = {}

    for key in keys:
        values = [json.dumps(values[key], ensure_ascii=False) if key in values else "–" for values in flat.values()]
        if key != "name" and len(set(values)) > 1:
            differences[key] = values
    return differences


def _leaves(value: Any, path: str = ""):
    """Yield (dotted key, value) of nested sections."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}".lstrip("."))
    elif path:
        yield path, value
