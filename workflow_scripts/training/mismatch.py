"""Compare the log-probs that an engine sampled with and those that ratios are taken against, and correct for it.

An engine computes in its own arithmetic, so the distribution that it samples from differs from the policy as training
scores it. The gradient is then an average over slightly wrong samples. Truncated importance sampling (Yao et al. 2025,
"Your efficient RL framework secretly brings you off-policy RL training") weighs each token by
min(π_scored / π_sampled, cap), or leaves out the tokens whose ratio is far from 1.

Advantages are multiplied by these weights. For all objectives that take ratios, this weighs the token's share of the
policy gradient; KL terms stay as they are.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.config.sections import Train
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json
from workflow_scripts.core.records import read_records
from workflow_scripts.core.running.cli import say
from workflow_scripts.core.running.manifest import manifest_of

Row = dict[str, Any]


def correct(rows: list[Row], files: Sequence[str], settings: Train) -> dict[str, float]:
    """Give rows the weights of their tokens (`correction`), and return how far engine and training are apart.

    Args:
        rows: the rows with `behaviour_logps`. Foreign rows, and those whose answer has no log-probs of an engine, are
            not corrected.
        files: the round's answers, with the log-probs that the engine gave (`sampled_logps`).

    Raises:
        BadInput: if the mean distance exceeds `max_mismatch`.
    """
    answers = {answer["uid"]: answer for path in files for answer in read_records(path)}
    pairs = []
    other_prompts = 0

    for row in rows:
        answer = answers.get(row["uid"], {})
        kept = len(row["tokens"])  # the data stage may have cut the answer
        is_own = not row["foreign"] and answer.get("tokens", [])[:kept] == row["tokens"]
        if not is_own or not answer["sampled_logps"]:
            continue

        other_prompts += answer["prompt_tokens"] != row["prompt_tokens"]
        sampled = np.asarray(answer["sampled_logps"][: sum(row["mask"])], np.float64)
        scored = np.asarray(row["behaviour_logps"], np.float64)
        pairs.append((sampled, scored))
        if settings.correction != "none":
            row["correction"] = weights(scored - sampled, settings.correction, settings.correction_cap)

    if not pairs:
        say("no row has log-probs of its engine: the mismatch is unknown, and nothing is corrected")
        return {}

    metrics = measures(*map(np.concatenate, zip(*pairs)))
    if settings.correction != "none":
        metrics["mean_correction"] = float(
            np.concatenate([row["correction"] for row in rows if "correction" in row]).mean()
        )
    say("engine and training: " + " ".join(f"{name}={value:.6g}" for name, value in metrics.items()))
    _check(metrics, other_prompts, len(pairs), files, settings)
    return metrics


def weights(log_ratio: np.ndarray, kind: str, cap: float) -> np.ndarray:
    """Return the weights [N] of a row's sampled tokens from log π_scored - log π_sampled [N], float32.

    `token` is the ratio of each token and `sequence` the one of the whole row, both at most `cap`. `mask` is 1 for
    tokens whose ratio lies between 1 / cap and cap, and 0 for others.
    """
    limit = np.log(cap)
    if kind == "sequence":
        log_ratio = np.full_like(log_ratio, log_ratio.sum())
    if kind == "mask":
        return (np.abs(log_ratio) <= limit).astype(np.float32)
    return np.exp(np.minimum(log_ratio, limit)).astype(np.float32)


def measures(sampled: np.ndarray, scored: np.ndarray) -> dict[str, float]:
    """Return how far two arrays of log-probs are apart: of the absolute difference the mean and percentiles."""
    distance = np.abs(scored - sampled)
    return {
        "tokens": float(len(distance)),
        "mean_distance": float(distance.mean()),
        "p99_distance": float(np.percentile(distance, 99)),
        "mean_ratio": float(np.exp(scored - sampled).mean()),
    }


def _check(metrics: dict[str, float], other_prompts: int, count: int, files: Sequence[str], settings: Train) -> None:
    """Raise BadInput, with what may be the cause, if engine and training are too far apart."""
    if settings.max_mismatch is None or metrics["mean_distance"] <= settings.max_mismatch:
        return

    engine: dict[str, Any] = {}
    if manifest_of(files[0]).exists():
        engine = read_json(manifest_of(files[0])).get("engine", {})

    causes = []
    if other_prompts:
        causes.append(f"{other_prompts} of {count} rows have another prompt than the engine answered (the template?)")
    if engine.get("dtype", settings.dtype) != settings.dtype:
        causes.append(f"the engine computed in {engine['dtype']}, training computes in {settings.dtype}")
    versions = ", ".join(f"{name} {value}" for name, value in engine.items() if name not in ("engine", "dtype"))
    causes.append(f"the engine was {engine.get('engine', 'unknown')} ({versions or 'no version is known'})")

    raise BadInput(
        f"{Path(files[0]).parent}: the log-probs of the engine and of training differ by "
        f"{metrics['mean_distance']:.4g} per token, more than train.max_mismatch {settings.max_mismatch:g}. Possible "
        f"causes: {'; '.join(causes)}"
    )
