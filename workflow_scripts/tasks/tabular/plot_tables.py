"""Plot what a checkpoint's rows are worth, from a round's metrics."""

from typing import Any

from workflow_scripts.core.files import read_json
from workflow_scripts.core.running.cli import add_code_argument, arguments, run
from workflow_scripts.core.running.plots import figure
from workflow_scripts.tasks.tabular.extraction import STATUSES
from workflow_scripts.tasks.tabular.measures import MAIN
from workflow_scripts.tasks.tabular.schemas import Schema, read_schema

Bars = dict[str, float | None]


def panels(metrics: dict[str, Any], schema: Schema) -> dict[str, Bars]:
    """Return the bars of each panel by its title."""
    return {
        "answers by status": {status: metrics["statuses"][status] for status in STATUSES},
        f"gradient boosting on real rows, {MAIN[schema.task]}": {
            "synthetic": metrics["tstr"],
            "real": metrics["real"],
            "prompts' rows": metrics["bootstrap"],
        },
        "distance of columns": {name: metrics["columns"][name] for name in schema.names},
        "distance to the nearest training row": {
            "synthetic": metrics["nearest_distance"],
            "test rows": metrics["nearest_distance_test"],
        },
    }


def signal_panel(task_metrics: list[dict[str, Any]], least: float) -> dict[str, Bars]:
    """Return the panel of the task models' signal, if there are held-out rows; its title says whether scores count."""
    signals = [metrics["signal"] for metrics in task_metrics if metrics["signal"] is not None]
    if not signals:
        return {}

    is_enough = sum(signals) / len(signals) >= least
    counts = "scores count" if is_enough else f"below {least}: scores do not count"
    return {f"signal of task models, {counts}": {f"model {number}": value for number, value in enumerate(signals)}}


def plot(bars_of: dict[str, Bars], path: str) -> None:
    """Draw panels of horizontal bars side by side, the first bar on top."""
    with figure(path, len(bars_of), width=4.5) as axes:
        for axis, (title, bars) in zip(axes, bars_of.items()):
            names = list(bars)[::-1]
            axis.barh(names, [bars[name] or 0 for name in names])
            axis.set(title=title)
            axis.grid(alpha=0.3, axis="x")


def main() -> None:
    parser = arguments(__doc__)
    add_code_argument(parser)
    parser.add_argument("--metrics", required=True, help="the metrics of a round (.json)")
    parser.add_argument("--task-metrics", nargs="*", default=[], help="the metrics of the round's task models (.json)")
    parser.add_argument("--min-signal", type=float, default=0.0, help="the signal from which on scores count")
    parser.add_argument("--schema", required=True, help="schema.json of the data set")
    parser.add_argument("--output", required=True, help="the .svg to write")
    args = parser.parse_args()

    schema = read_schema(args.schema)
    metrics = read_json(args.metrics)
    bars = panels(metrics["by_level"].get(schema.name, metrics), schema)
    bars |= signal_panel([read_json(path) for path in args.task_metrics], args.min_signal)
    plot(bars, args.output)


if __name__ == "__main__":
    run(main)
