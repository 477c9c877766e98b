"""Measure task models on real rows that they did not learn from.

The models are the merged one and, if there are several clients, those of the clients in the last communication round.
Each is asked for the targets of the test rows and of the held-out rows ({table}_client_{i}.{test|val}.jsonl). OUTPUT
holds

    models       by name, and by split: mcc and accuracy, or r2 and mae; signal; n
    mean_client  the clients' mean of these
    signal       of the merged model on the held-out rows, with its 95 % interval `signal_low`, `signal_high`; null if
                 there are none

The signal says how well a model ranks rows by their label: Somers' D, 2 × AUC - 1, averaged over the labels. For a
quantity it is Spearman's rank correlation. 0 is chance and 1 is perfect. Scores of synthetic rows rest on the same
log-probs, so without a signal they are noise.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from workflow_scripts.config.load import settings_help
from workflow_scripts.config.sections import Logp
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json, write_json
from workflow_scripts.core.records import read_records
from workflow_scripts.core.running.cli import add_code_argument, add_template_argument, arguments, run
from workflow_scripts.core.running.manifest import content_digest
from workflow_scripts.core.templates import render
from workflow_scripts.core.tokens import encode_pieces, encode_prompt
from workflow_scripts.tasks.tabular.addscore import chosen_answer, load_model
from workflow_scripts.tasks.tabular.prefixes import answer_logps

DRAWS = 200  # of the bootstrap
PROMPTS_HELD = 32  # prompts that are read at a time

Question = dict[str, str]  # prompt, response


# ---------------------------------------------------------------- measures


def signal_of(logps: np.ndarray, references: Sequence[str], anchors: dict[str, Any]) -> float:
    """Return how well log-probs of candidates, [rows, candidates], rank rows by their reference: from -1 to 1."""
    if anchors["task"] == "regression":
        from scipy.stats import spearmanr

        answers = [chosen_answer(list(values), anchors) for values in logps]  # type: ignore[arg-type]
        truth = [float(reference) for reference in references]
        correlation: Any = spearmanr(answers, truth)
        return float(np.nan_to_num(correlation.statistic)) if len(set(truth)) > 1 else 0.0

    from sklearn.metrics import roc_auc_score

    totals = np.logaddexp.reduce(logps, axis=1)
    values = []
    for position, label in enumerate(anchors["candidates"]):
        is_label = [reference == label for reference in references]
        if any(is_label) and not all(is_label):
            values.append(2 * roc_auc_score(is_label, logps[:, position] - totals) - 1)

    return float(np.mean(values)) if values else 0.0


def interval_of(logps: np.ndarray, references: Sequence[str], anchors: dict[str, Any]) -> tuple[float, float]:
    """Return the 95 % interval of the signal over rows that are drawn again."""
    rng = np.random.default_rng(0)
    values = []
    for _ in range(DRAWS):
        drawn = rng.integers(0, len(references), len(references))
        values.append(signal_of(logps[drawn], [references[int(number)] for number in drawn], anchors))

    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def measures_of(logps: np.ndarray, references: Sequence[str], anchors: dict[str, Any]) -> dict[str, float]:
    """Return the measures of a model's answers."""
    from sklearn import metrics

    answers = [chosen_answer(list(values), anchors) for values in logps]  # type: ignore[arg-type]
    common = {"signal": signal_of(logps, references, anchors), "n": len(references)}

    if anchors["task"] == "regression":
        truth = [float(reference) for reference in references]
        r2 = float(metrics.r2_score(truth, answers)) if len(truth) > 1 else 0.0
        return {"r2": r2, "mae": float(metrics.mean_absolute_error(truth, answers))} | common
    return {
        "mcc": float(metrics.matthews_corrcoef(references, answers)),
        "accuracy": float(metrics.accuracy_score(references, answers)),
    } | common


def mean_of(measures: Sequence[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Return the mean of models' measures, by split."""
    return {
        split: {name: float(np.mean([of_model[split][name] for of_model in measures])) for name in measures[0][split]}
        for split in measures[0]
    }


# ---------------------------------------------------------------- the stage


def logps_of(model: Any, tokenizer: Any, questions: Sequence[Question], anchors: Any, template: str) -> np.ndarray:
    """Return the log-probs of the candidates, [questions, candidates]."""
    candidates = [encode_pieces(tokenizer, [(f" {candidate}", True)])[0] for candidate in anchors["candidates"]]
    size = max(1, PROMPTS_HELD // len(candidates))
    values: list[list[float]] = []

    for start in range(0, len(questions), size):
        batch = questions[start : start + size]
        prompts = [encode_prompt(tokenizer, render(template, question["prompt"], tokenizer)) for question in batch]
        groups, _ = answer_logps(model, [[prompt] for prompt in prompts], candidates)
        values += [of_prompt for group in groups for of_prompt in group]

    return np.array(values)


def parse_arguments() -> argparse.Namespace:
    parser = arguments(__doc__)
    add_code_argument(parser)
    parser.add_argument("--model", required=True, help="checkpoint.json of the merged task model")
    parser.add_argument("--clients", nargs="*", default=[], help="checkpoint.json of the clients' task models")
    parser.add_argument("--prompts", required=True, help="the anchors' prompts (.json), for the candidates")
    parser.add_argument("--test", required=True, nargs="+", help="questions about test rows (.jsonl)")
    parser.add_argument("--held-out", nargs="*", default=[], help="questions about held-out rows (.jsonl)")
    add_template_argument(parser)
    parser.add_argument("--settings", default="{}", help=settings_help("logp"))
    parser.add_argument("--output", required=True, help="the .json to write")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    settings = Logp.model_validate_json(args.settings)
    torch.set_num_threads(settings.threads)
    anchors = read_json(args.prompts)
    files = {"test": args.test, "held_out": args.held_out}
    splits = {
        split: questions
        for split, paths in files.items()
        if (questions := [question for path in paths for question in read_records(path)])
    }
    if "test" not in splits:
        raise BadInput(f"{', '.join(args.test)}: there are no questions about test rows")

    named = {"merged": args.model, **{f"client_{number}": path for number, path in enumerate(args.clients)}}
    models: dict[str, dict[str, dict[str, float]]] = {}
    signals: dict[str, float | None] = {"signal": None, "signal_low": None, "signal_high": None}
    for name, path in named.items():
        model, tokenizer = load_model(path, settings.dtype)
        models[name] = {}
        for split, questions in splits.items():
            logps = logps_of(model, tokenizer, questions, anchors, args.template)
            references = [question["response"].strip() for question in questions]
            models[name][split] = measures_of(logps, references, anchors)
            if name == "merged" and split == "held_out":
                low, high = interval_of(logps, references, anchors)
                signals = {"signal": models[name][split]["signal"], "signal_low": low, "signal_high": high}

    clients = [measures for name, measures in models.items() if name != "merged"]
    inputs = [*named.values(), args.prompts, *args.test, *args.held_out]
    result = {"models": models, "mean_client": mean_of(clients) if clients else None} | signals
    write_json(args.output, result | {"inputs": {path: content_digest(path) for path in inputs}})
    print(f"test rows: {models['merged']['test']}; mean client: {result['mean_client']}; signal {signals['signal']}")


if __name__ == "__main__":
    run(main)
