"""Compute a round's metrics from a checkpoint's graded answers to the eval questions."""

from pathlib import Path
from typing import Any

from workflow_scripts import tasks
from workflow_scripts.core.files import read_json, write_json
from workflow_scripts.core.records import read_records
from workflow_scripts.core.running.cli import add_code_argument, add_task_arguments, arguments, run, task_files
from workflow_scripts.core.running.manifest import content_digest

Z95 = 1.959964  # standard errors on each side of a 95 % interval


def read_answers(results: list[str], before: list[str], judged: list[str]) -> list[dict[str, Any]]:
    """Return the graded answers, each with the round before's answer to the same question and the judge's verdict."""
    earlier = {record["uid"]: record for path in before for record in read_records(path)}
    verdicts = {line["uid"]: line["verdict"] for path in judged for line in read_records(path)}
    answers = []

    for path in results:
        for record in read_records(path):
            uid = record["uid"]
            answers.append(record | {"before": earlier.get(uid), "judged": verdicts.get(uid)})

    return answers


def summarise(evaluation: Any, answers: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the metrics of all answers and, if there are several eval sets, those of each under `by_set`."""
    metrics = evaluation.summarise(answers)
    by_set: dict[str, list[dict[str, Any]]] = {}

    for answer in answers:
        if answer.get("set"):
            by_set.setdefault(answer["set"], []).append(answer)
    if by_set:
        metrics["by_set"] = {name: evaluation.summarise(members) for name, members in sorted(by_set.items())}

    return metrics


def metrics_of_suites(paths: list[str]) -> dict[str, Any]:
    """Return the metrics of benchmark suites by name. The limits of a 95 % interval are normal approximations."""
    suites = {}

    for path in paths:
        summary = read_json(path)
        for metric in summary["metrics"].values():
            if metric["stderr"] is not None:
                metric["low"] = metric["value"] - Z95 * metric["stderr"]
                metric["high"] = metric["value"] + Z95 * metric["stderr"]
        suites[Path(path).stem] = {key: summary[key] for key in ("metrics", "tasks", "n") if key in summary}

    return suites


def described(evaluation: Any, metrics: dict[str, Any]) -> list[str]:
    """Return the task's metrics with their labels, as the stage prints them."""
    return [
        f"{label} {metrics[name]:{form}}"
        for name, (label, form) in evaluation.metrics.items()
        if metrics.get(name) is not None
    ]


def main() -> None:
    parser = arguments(__doc__)
    add_task_arguments(parser)
    add_code_argument(parser)
    parser.add_argument("--results", required=True, nargs="+", help="graded shards (…_matchlog.pkl)")
    parser.add_argument("--before", nargs="*", default=[], help="graded shards of the round before, to compare with")
    parser.add_argument("--judged", nargs="*", default=[], help="the judge's verdicts (.jsonl)")
    parser.add_argument("--suites", nargs="*", default=[], help="metrics of benchmark suites (.json)")
    parser.add_argument("--round", type=int, required=True, help="number of the checkpoint that answered")
    parser.add_argument("--output", required=True, help="the .json to write")
    args = parser.parse_args()

    files = task_files(args)
    evaluation = tasks.load(args.task, "Evaluation", args.task_settings, files)
    answers = read_answers(args.results, args.before, args.judged)
    metrics = summarise(evaluation, answers)

    if args.suites:
        metrics["suites"] = metrics_of_suites(args.suites)

    inputs = [*args.results, *args.before, *args.judged, *args.suites, *files.values()]
    write_json(
        args.output, {"round": args.round} | metrics | {"inputs": {path: content_digest(path) for path in inputs}}
    )

    print(f"round {args.round}: {', '.join(described(evaluation, metrics))}, {len(answers)} answers")
    for name, values in metrics.get("by_set", {}).items():
        print(f"  {name}: {', '.join(described(evaluation, values))}, {values['n']} answers")
    for name, suite in metrics.get("suites", {}).items():
        shown = [f"{metric} {values['value']:.4g}" for metric, values in suite["metrics"].items()]
        print(f"  {name}: {', '.join(shown)}, {suite['n']} questions")


if __name__ == "__main__":
    run(main)
