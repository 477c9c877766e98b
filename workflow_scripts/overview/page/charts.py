"""Describe the charts of a run's page in Vega-Lite. `page.js` adds sizes and the colours of the light or dark theme.

Colours alone never tell two curves apart: points have shapes, and every mark has a tooltip. The categorical colours are
those of Okabe and Ito, which readers with colour blindness can tell apart; shares use one hue from light to dark.
"""

from typing import Any

from workflow_scripts.overview.page.facts import TRAINED, Row

Spec = dict[str, Any]

SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
# Without this, the symbols of a legend are as pale as the bands of intervals, and so lighter than the curves.
LEGEND: Spec = {"symbolOpacity": 1, "symbolStrokeWidth": 2}
ROUND: Spec = {"field": "round", "type": "ordinal", "title": "round", "axis": {"labelAngle": 0}}


def _chart(title: str, rows: list[Row], **spec: Any) -> Spec:
    return {"$schema": SCHEMA, "title": title, "width": "container", "height": 220, "data": {"values": rows}} | spec


def metric(name: str, label: str, form: str, rows: list[Row]) -> Spec:
    """Return the curves of a metric over the rounds by level, with intervals as bands where they are known."""
    own = [row for row in rows if row["metric"] == name]
    form = form if form[-1:] in "%fdg" else ".3f"
    levels = list(dict.fromkeys(row["level"] for row in own))
    by_level: Spec = {"field": "level", "type": "nominal", "title": None, "scale": {"domain": levels}, "legend": LEGEND}
    value: Spec = {"field": "value", "type": "quantitative", "title": None, "axis": {"format": form}}
    if form.endswith("%"):
        value["scale"] = {"domain": [0, 1]}

    tooltip = [
        {"field": "level", "title": "level"},
        {"field": "round", "title": "round"},
        {"field": "value", "title": label, "format": form},
        {"field": "n", "title": "answers"},
    ]
    layers: list[Spec] = []
    if any("low" in row for row in own):
        band = {"x": ROUND, "y": {"field": "low", "type": "quantitative"}, "y2": {"field": "high"}, "color": by_level}
        layers.append({"mark": {"type": "area", "opacity": 0.15}, "encoding": band})
        tooltip += [{"field": side, "title": f"{side} end of the interval", "format": form} for side in ("low", "high")]

    curve = {"x": ROUND, "y": value, "color": by_level}
    layers.append({"mark": "line", "encoding": curve})
    points = curve | {"shape": by_level, "tooltip": tooltip}
    layers.append({"mark": {"type": "point", "filled": True, "size": 70}, "encoding": points})
    return _chart(label, own, layer=layers)


def compared(name: str, label: str, form: str, evaluated: dict[str, list[Row]]) -> Spec:
    """Return the curves of a metric of all questions over the rounds, by run, with intervals as bands."""
    own = []
    for run, rows in evaluated.items():
        own += [row | {"level": run} for row in rows if row["level"] == "all"]
    return metric(name, label, form, own)


def compared_cost(rows: list[Row]) -> Spec:
    """Return the minutes of jobs by run, with a bar of parts for the stages."""
    return _chart(
        "Minutes of jobs by run and stage, all rounds",
        [row | {"minutes": row["seconds"] / 60} for row in rows],
        height=40 * len({row["run"] for row in rows}),
        mark={"type": "bar", "stroke": "#8888", "strokeWidth": 0.5},
        encoding={
            "y": {"field": "run", "type": "nominal", "title": None},
            "x": {
                "field": "minutes",
                "aggregate": "sum",
                "type": "quantitative",
                "title": "minutes, added up over jobs",
            },
            "color": {"field": "stage", "type": "nominal", "title": None, "legend": LEGEND},
            "tooltip": [
                {"field": "run"},
                {"field": "stage"},
                {"field": "seconds", "aggregate": "sum", "format": ",.0f", "title": "seconds"},
            ],
        },
    )


def rewards(rows: list[Row]) -> Spec:
    """Return the shares of rewards in each round as stacked bars."""
    order = [row["reward"] for row in sorted(rows, key=lambda row: row["order"])]
    colour: Spec = {
        "field": "reward",
        "type": "ordinal",
        "title": "reward",
        "sort": list(dict.fromkeys(order)),
        "scale": {"scheme": "blues"},
    }
    return _chart(
        "Rewards of a round's answers (shares)",
        rows,
        mark={"type": "bar", "stroke": "#8888", "strokeWidth": 0.5},
        encoding={
            "x": ROUND,
            "y": {"field": "share", "type": "quantitative", "title": None, "axis": {"format": ".0%"}},
            "color": colour,
            "order": {"field": "order", "type": "quantitative"},
            "tooltip": [
                {"field": "reward"},
                {"field": "share", "format": ".1%"},
                {"field": "answers", "format": ","},
                {"field": "round"},
            ],
        },
    )


def lengths(rows: list[Row]) -> Spec:
    """Return the median and the middle 80 % of the lengths of answers, in tokens."""
    y: Spec = {"field": "low", "type": "quantitative", "title": None}
    tooltip = [{"field": name, "format": ","} for name in ("round", "low", "middle", "high", "answers")]
    return _chart(
        "Sampled tokens: median and middle 80 %",
        rows,
        layer=[
            {"mark": {"type": "bar", "width": 14, "opacity": 0.35}, "encoding": {"y2": {"field": "high"}}},
            {"mark": {"type": "point", "filled": True, "size": 70}, "encoding": {"y": y | {"field": "middle"}}},
        ],
        encoding={"x": ROUND, "y": y, "tooltip": tooltip},
    )


def ends(rows: list[Row]) -> Spec:
    """Return the shares of answers by how they ended."""
    return _chart(
        "How a round's answers end (shares)",
        rows,
        mark="bar",
        encoding={
            "x": ROUND,
            "y": {"field": "share", "type": "quantitative", "title": None, "axis": {"format": ".0%"}},
            "color": {"field": "end", "type": "nominal", "title": None},
            "tooltip": [{"field": "end"}, {"field": "share", "format": ".1%"}, {"field": "answers", "format": ","}],
        },
    )


def trained(name: str, rows: list[Row]) -> Spec:
    """Return a logged metric of training over the updates of all rounds."""
    own = [{"place": row["place"], "round": row["round"], "value": row[name]} for row in rows if name in row]
    return _chart(
        TRAINED[name],
        own,
        height=140,
        mark={"type": "line", "point": len(own) < 60},
        encoding=_over_updates() | {"y": {"field": "value", "type": "quantitative", "title": None}},
    )


def ratios(rows: list[Row]) -> Spec:
    """Return the median of the importance ratios and the range from their 5 % to their 95 % quantile."""
    names = ("place", "round", "ratio_p05", "ratio_p50", "ratio_p95")
    own = [{name: row[name] for name in names} for row in rows if "ratio_p50" in row]
    y: Spec = {"type": "quantitative", "title": None, "scale": {"zero": False}}
    return _chart(
        "Importance ratios: median, 5 % to 95 %",
        own,
        height=140,
        layer=[
            {
                "mark": {"type": "area", "opacity": 0.25},
                "encoding": {"y": y | {"field": "ratio_p05"}, "y2": {"field": "ratio_p95"}},
            },
            {"mark": "line", "encoding": {"y": y | {"field": "ratio_p50"}}},
        ],
        encoding=_over_updates(),
    )


def _over_updates() -> Spec:
    return {
        "x": {"field": "place", "type": "quantitative", "title": "updates of all rounds"},
        "color": {"field": "round", "type": "nominal", "title": "round", "legend": LEGEND},
        "tooltip": [{"field": "round"}, {"field": "place", "title": "update"}, {"field": "value", "format": ".4~g"}],
    }


def cost(rows: list[Row]) -> Spec:
    """Return the minutes of jobs by stage, with a bar of parts for the rounds."""
    total: dict[str, float] = {}
    for row in rows:
        total[row["stage"]] = total.get(row["stage"], 0) + row["seconds"]
    own = [row | {"minutes": row["seconds"] / 60} for row in rows]
    return _chart(
        "Minutes of jobs by stage and round",
        own,
        height=24 * len(total),
        mark={"type": "bar", "stroke": "#8888", "strokeWidth": 0.5},
        encoding={
            "y": {
                "field": "stage",
                "type": "nominal",
                "title": None,
                "sort": sorted(total, key=lambda stage: -total[stage]),
            },
            "x": {"field": "minutes", "type": "quantitative", "title": "minutes, added up over jobs"},
            "color": {"field": "round", "type": "ordinal", "title": "round", "scale": {"scheme": "blues"}},
            "tooltip": [{"field": "stage"}, {"field": "round"}, {"field": "seconds", "format": ",.0f"}],
        },
    )
