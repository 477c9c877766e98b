"""Compare an engine's log-probs of the tokens it sampled with those that the stage logp computes for them.

Both are of logits / temperature under the same policy, so only floating point differs. The output has percentiles of
the absolute difference and the mean importance ratio (1 if all is well); the plot is a histogram. Answers without
log-probs (imported ones, a teacher's) are left out.
"""

from typing import Any

import numpy as np

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import write_json
from workflow_scripts.core.pickles import read_pickle
from workflow_scripts.core.records import read_records
from workflow_scripts.core.running.cli import add_code_argument, arguments, run, say
from workflow_scripts.core.running.plots import figure

SMALLEST = 1e-10  # differences below this one are drawn as this one


def read_pairs(results: list[str], logps: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return (sampled, scored) log-probs of all sampled tokens of the scored answers, end to end."""
    sampled = {row["uid"]: row["sampled_logps"] for path in results for row in read_records(path)}
    scored = {uid: values for path in logps for uid, values in read_pickle(path).items() if sampled.get(uid)}

    for uid, values in scored.items():
        if len(values) != len(sampled[uid]):
            raise BadInput(
                f"answer {uid}: {len(sampled[uid])} log-probs were sampled, but {len(values)} are scored; the log-prob "
                "files are of other answers"
            )

    return _end_to_end(sampled, scored), _end_to_end(scored, scored)


def _end_to_end(values: dict[str, Any], uids: dict[str, Any]) -> np.ndarray:
    parts = [np.asarray(values[uid], np.float64) for uid in uids]
    return np.concatenate(parts) if parts else np.zeros(0)


def plot(differences: np.ndarray, path: str) -> None:
    """Draw a histogram of the absolute differences."""
    with figure(path) as [axis]:
        axis.hist(np.log10(np.maximum(np.abs(differences), SMALLEST)), bins=60)
        axis.set(xlabel="log10 |sampled − scored| (1e-10 and below at the left)", ylabel="tokens", yscale="log")


def main() -> None:
    parser = arguments(__doc__)
    add_code_argument(parser)
    parser.add_argument("--results", required=True, nargs="+", help="a round's answers (.pkl)")
    parser.add_argument("--logp", required=True, nargs="+", help="the log-probs of its training data (.pkl)")
    parser.add_argument("--plot", required=True, help="the histogram to write (.svg)")
    parser.add_argument("--output", required=True, help="the .json to write")
    args = parser.parse_args()

    sampled, scored = read_pairs(args.results, args.logp)
    metrics: dict[str, float] = {"tokens": len(sampled)}
    if len(sampled):
        distance = np.abs(sampled - scored)
        metrics |= {f"p{q}": float(np.percentile(distance, q)) for q in (50, 95, 99)}
        metrics["max"] = float(distance.max())
        metrics["mean_ratio"] = float(np.exp(scored - sampled).mean())

    plot(sampled - scored, args.plot)
    write_json(args.output, metrics)
    say(" ".join(f"{name}={value:.6g}" for name, value in metrics.items()))


if __name__ == "__main__":
    run(main)
