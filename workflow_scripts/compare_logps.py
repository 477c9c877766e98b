"""How far an engine's log-probs of the tokens it sampled are from those that the logp stage computes for them.

Both are of logits / temperature under the same policy, so what differs is floating point: p95 of |difference|, the
mean importance ratio (1 where all is well), and a histogram. Answers without log-probs (imported, a teacher's) are
left out.
"""

import numpy as np

from workflow_scripts.core.cli import arguments, run, say
from workflow_scripts.core.plots import plotted
from workflow_scripts.core.records import BadInput, read_pickle, read_records, write_json


def pairs(results: list[str], logps: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """(sampled, scored) log-probs of all sampled tokens of the answers that were scored, end to end."""
    sampled = {row["uid"]: row["sampled_logps"] for path in results for row in read_records(path)}
    scored = {uid: values for path in logps for uid, values in read_pickle(path).items() if sampled.get(uid)}
    for uid, values in scored.items():
        if len(values) != len(sampled[uid]):
            raise BadInput(f"{uid}: {len(sampled[uid])} log-probs were sampled, {len(values)} scored: stale logp files")
    join = [
        np.concatenate([np.asarray(side[uid], np.float64) for uid in scored] or [np.zeros(0)])
        for side in (sampled, scored)
    ]
    return join[0], join[1]


def plot(differences: np.ndarray, path: str) -> None:
    with plotted(path) as [axis]:
        axis.hist(np.log10(np.maximum(np.abs(differences), 1e-10)), bins=60)
        axis.set(xlabel="log10 |sampled − scored|, 1e-10 and below at the left", ylabel="tokens", yscale="log")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--results", required=True, nargs="+", help="a round's answers (.pkl)")
    parser.add_argument("--logp", required=True, nargs="+", help="the log-probs of its training data (.pkl)")
    parser.add_argument("--plot", required=True, help="the histogram to write (.svg)")
    parser.add_argument("--output", required=True, help="the .json to write")
    args = parser.parse_args()
    sampled, scored = pairs(args.results, args.logp)
    figures = {"tokens": len(sampled)}
    if len(sampled):
        distance = np.abs(sampled - scored)
        figures |= {f"p{q}": float(np.percentile(distance, q)) for q in (50, 95, 99)}
        figures |= {"max": float(distance.max()), "mean_ratio": float(np.exp(scored - sampled).mean())}
    plot(sampled - scored, args.plot)
    write_json(args.output, figures)
    say(" ".join(f"{name}={value:.6g}" for name, value in figures.items()))


if __name__ == "__main__":
    run(main)
