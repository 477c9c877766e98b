"""Compute a round's metrics from a checkpoint's graded answers to the eval questions.

Metrics that are means over answers get a 95 % confidence interval (`intervals`) and are compared with the evaluated
round before and with round 0 on the same questions (`against`), see core/significance.py. With several samples per
question, avg@k, pass@k and maj@k are added (core/samples.py).

If the reward is composed, the task's metrics are those of its own reward. The mean of each part is the metric `part
NAME`, and that of the weighted sum `total_reward`. If a judge compared the answers with those of the round before,
`judge` has the share of wins, the p-value of a sign test, and the judge's position bias.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workflow_scripts import tasks
from workflow_scripts.core.files import read_json, write_json
from workflow_scripts.core.records import read_records
from workflow_scripts.core.running.cli import add_code_argument, add_task_arguments, arguments, run, task_files
from workflow_scripts.core.running.manifest import content_digest
from workflow_scripts.core.samples import maj_at_k, pass_at_k, sizes
from workflow_scripts.core.significance import compare, interval, is_binary, mcnemar
from workflow_scripts.rewards._pairs import TIE, position_bias
from workflow_scripts.rewards._pairs import described as described_bias

Answer = dict[str, Any]
Columns = dict[str, dict[str, list[float]]]  # metric → question → values, one per answer

Z95 = 1.959964  # standard errors on each side of a 95 % interval


# ---------------------------------------------------------------- reading


def read_answers(paths: Sequence[str]) -> list[Answer]:
    """Return graded answers. If the reward is composed, `reward` is the task's own and `total_reward` the sum."""
    answers = []

    for path in paths:
        for record in read_records(path):
            is_composed = "grade" in record
            own = {"reward": record["grade"], "total_reward": record["reward"]} if is_composed else {}
            answers.append(record | own)

    return answers


def with_comparisons(answers: list[Answer], before: list[Answer], judged: list[dict[str, Any]]) -> list[Answer]:
    """Return the answers, each with the round before's answer to the same question and the judge's verdict."""
    earlier = {record["uid"]: record for record in before}
    verdicts = {line["uid"]: line["verdict"] for line in judged}
    return [
        answer | {"before": earlier.get(answer["uid"]), "judged": verdicts.get(answer["uid"])} for answer in answers
    ]


# ---------------------------------------------------------------- values by question


def columns_of(evaluation: Any, answers: Sequence[Answer]) -> Columns:
    """Return the values of the metrics that are means over answers, and of those of several samples per question."""
    columns: Columns = {}
    votes: dict[str, list[str | None]] = {}

    for answer in answers:
        votes.setdefault(answer["id"], []).append(evaluation.vote(answer))
        for name, value in (evaluation.values(answer) | values_of_parts(answer)).items():
            columns.setdefault(name, {}).setdefault(answer["id"], []).append(value)

    return columns | sample_columns(columns.get(evaluation.right, {}), votes)


def values_of_parts(answer: Answer) -> dict[str, float]:
    """Return the parts of a composed reward and their sum, without what is undecided."""
    if "total_reward" not in answer:
        return {}

    values = {"total_reward": answer["total_reward"]}
    values |= {f"part {name}": value for name, value in answer["rewards"].items()}
    return {name: value for name, value in values.items() if value is not None}


def sample_columns(right: dict[str, list[float]], votes: dict[str, list[str | None]]) -> Columns:
    """Return avg@n, pass@k and, for tasks whose answers can vote, maj@k; nothing for one sample per question."""
    samples = min(map(len, right.values()), default=0)
    if samples < 2 or not is_binary(right):
        return {}

    columns: Columns = {f"avg@{samples}": {question: [sum(row) / len(row)] for question, row in right.items()}}
    can_vote = any(vote is not None for row in votes.values() for vote in row)

    for k in sizes(samples)[1:]:
        columns[f"pass@{k}"] = {question: [pass_at_k(len(row), round(sum(row)), k)] for question, row in right.items()}
        if can_vote and k > 2:  # of two answers, a vote decides no better than one does
            columns[f"maj@{k}"] = {question: [maj_at_k(votes[question], row, k)] for question, row in right.items()}

    return columns


# ---------------------------------------------------------------- metrics


def statistics(evaluation: Any, answers: list[Answer], others: dict[str, list[Answer]]) -> dict[str, Any]:
    """Return the metrics of samples and parts, the intervals, and the comparisons with other rounds by their name.

    Args:
        evaluation: the task's part.
        answers: graded answers to some questions.
        others: the answers of other rounds, by their name. Those to other questions do not count.
    """
    columns = columns_of(evaluation, answers)
    means = {name: _mean(by_question) for name, by_question in columns.items() if is_general(name)}
    intervals = {name: interval(by_question) for name, by_question in columns.items()}
    result: dict[str, Any] = means | {"intervals": {name: limits for name, limits in intervals.items() if limits}}

    questions = {answer["id"] for answer in answers}
    for other, all_earlier in others.items():
        earlier = columns_of(evaluation, [answer for answer in all_earlier if answer["id"] in questions])
        compared = {name: compare(columns[name], earlier.get(name, {})) for name in columns}
        result.setdefault("against", {})[other] = {name: values for name, values in compared.items() if values}

    return result


def is_general(name: str) -> bool:
    """Return whether a metric is none of the task's: of several samples, of a part of the reward, or of the sum."""
    return "@" in name or name.startswith("part ") or name == "total_reward"


def of_judge(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how often a judge preferred the answers to those of the round before, and the judge's position bias.

    A tie counts as half a win. `p` is that of the sign test on the verdicts that are no ties.
    """
    verdicts = [line["verdict"] for line in lines]
    won = sum(verdict > TIE for verdict in verdicts)
    lost = sum(verdict < TIE for verdict in verdicts)
    limits = interval({line["uid"]: [line["verdict"]] for line in lines}) or {}
    return {
        "wins": sum(verdicts) / max(1, len(verdicts)),
        **{side: limits[side] for side in ("low", "high") if side in limits},
        "p": mcnemar(won, lost),
        "verdicts": len(verdicts),
        "position_bias": position_bias(line.get("preferred", []) for line in lines),
    }


def _mean(by_question: dict[str, list[float]]) -> float:
    values = [value for row in by_question.values() for value in row]
    return sum(values) / max(1, len(values))


def summarise(evaluation: Any, answers: list[Answer], others: dict[str, list[Answer]]) -> dict[str, Any]:
    """Return the metrics of all answers, those of each level under `by_level`, each with its statistics.

    Each level has the metrics of its own number of samples.
    """
    metrics = evaluation.summarise(answers)
    levels: dict[str, list[Answer]] = {}
    for answer in answers:
        levels.setdefault(answer["level"], []).append(answer)

    for level, values in metrics["by_level"].items():
        values |= statistics(evaluation, levels.get(level, []), others)

    return metrics | statistics(evaluation, answers, others)


def summarise_sets(evaluation: Any, answers: list[Answer], others: dict[str, list[Answer]]) -> dict[str, Any]:
    """Return the metrics of all answers and, if there are several eval sets, those of each under `by_set`."""
    metrics = summarise(evaluation, answers, others)
    by_set: dict[str, list[Answer]] = {}

    for answer in answers:
        if answer.get("set"):
            by_set.setdefault(answer["set"], []).append(answer)
    if by_set:
        metrics["by_set"] = {name: summarise(evaluation, members, others) for name, members in sorted(by_set.items())}

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
    parser.add_argument("--round0", nargs="*", default=[], help="graded shards of round 0, to compare with")
    parser.add_argument("--judged", nargs="*", default=[], help="the judge's verdicts (.jsonl)")
    parser.add_argument("--suites", nargs="*", default=[], help="metrics of benchmark suites (.json)")
    parser.add_argument("--round", type=int, required=True, help="number of the checkpoint that answered")
    parser.add_argument("--output", required=True, help="the .json to write")
    args = parser.parse_args()

    files = task_files(args)
    evaluation = tasks.load(args.task, "Evaluation", args.task_settings, files)
    before = read_answers(args.before)
    judged = [line for path in args.judged for line in read_records(path)]
    answers = with_comparisons(read_answers(args.results), before, judged)

    others = {"before": before} if args.before else {}
    if args.round0:
        others["round0"] = before if args.round0 == args.before else read_answers(args.round0)
    metrics = summarise_sets(evaluation, answers, others)
    if judged:
        metrics["judge"] = of_judge(judged)

    if args.suites:
        metrics["suites"] = metrics_of_suites(args.suites)

    inputs = dict.fromkeys([*args.results, *args.before, *args.round0, *args.judged, *args.suites, *files.values()])
    write_json(
        args.output, {"round": args.round} | metrics | {"inputs": {path: content_digest(path) for path in inputs}}
    )

    print(f"round {args.round}: {', '.join(described(evaluation, metrics))}, {len(answers)} answers")
    if judged:
        print(f"  judge: wins {metrics['judge']['wins']:.1%}; {described_bias(metrics['judge']['position_bias'])}")
    for name, values in metrics.get("by_set", {}).items():
        print(f"  {name}: {', '.join(described(evaluation, values))}, {values['n']} answers")
    for name, suite in metrics.get("suites", {}).items():
        shown = [f"{metric} {values['value']:.4g}" for metric, values in suite["metrics"].items()]
        print(f"  {name}: {', '.join(shown)}, {suite['n']} questions")


if __name__ == "__main__":
    run(main)
