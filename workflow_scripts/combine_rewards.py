"""Add up the parts of a composed reward: the weighted sum becomes the answers' `reward`.

An answer keeps the value of each part as `rewards`, and the task's own reward as `grade`, which metrics are computed
from. An answer of a round that some part cannot judge is not trained on: it goes to OUTPUT.rejects.jsonl with the
reason. Among the answers to the eval questions it stays, with that part and the sum missing.

    python -m workflow_scripts.combine_rewards --graded graded.pkl --values length=length.pkl \\
        --weights '{"task": 1.0, "length": 0.2}' --output sums.pkl
"""

import json
from typing import Any

from workflow_scripts.config.layout import is_learnt_from
from workflow_scripts.config.sections import OWN_GRADE
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import write_rejects
from workflow_scripts.core.pickles import write_pickle
from workflow_scripts.core.records import conserve, read_records
from workflow_scripts.core.running.cli import add_code_argument, arguments, run, say
from workflow_scripts.core.running.manifest import write_manifest, write_usage

Record = dict[str, Any]


def read_values(path: str, name: str, uids: list[str]) -> list[Record]:
    """Return a part's value for each answer. Raise BadInput if it is not of the same answers."""
    by_uid = {row["uid"]: row for row in read_records(path)}

    missing = [uid for uid in uids if uid not in by_uid]
    if missing or len(by_uid) != len(uids):
        what = f"it lacks {missing[0]}" if missing else f"it has {len(by_uid)} values for {len(uids)} answers"
        raise BadInput(f"{path}: the values of the part {name} are of other answers: {what}; remove the file")

    return [by_uid[uid] for uid in uids]


def combined(answer: Record, values: dict[str, Record], weights: dict[str, float]) -> tuple[Record, str | None]:
    """Return an answer with its parts and their weighted sum, and the reason if a part is undecided."""
    rewards = {name: answer["reward"] if name == OWN_GRADE else values[name]["value"] for name in weights}
    undecided = [name for name, value in rewards.items() if value is None]
    total = None if undecided else sum(weights[name] * value for name, value in rewards.items())

    result = answer | {"grade": answer["reward"], "rewards": rewards, "reward": total}
    if "parts" in answer:  # the task combines parts of its own among a prompt's answers: the sum is the only one
        result["parts"] = {"sum": total}
    return result, f"{undecided[0]}: {values[undecided[0]]['reason']}" if undecided else None


def main() -> None:
    parser = arguments(__doc__)
    add_code_argument(parser)
    parser.add_argument("--graded", required=True, help="answers with the task's own reward (.pkl)")
    parser.add_argument("--values", nargs="*", default=[], metavar="NAME=PATH", help="the values of each part (.pkl)")
    parser.add_argument("--weights", required=True, type=json.loads, help="the weight of each part by name, as JSON")
    parser.add_argument("--output", required=True, help="the .pkl to write")
    args = parser.parse_args()

    graded = list(read_records(args.graded))
    uids = [answer["uid"] for answer in graded]
    files = dict(item.split("=", 1) for item in args.values)
    if missing := args.weights.keys() - files.keys() - {OWN_GRADE}:
        raise BadInput(f"--values: there is no file for the part {sorted(missing)[0]}")
    values = {name: read_values(path, name, uids) for name, path in files.items()}

    rejects_undecided = is_learnt_from(args.output)
    rows = []
    rejects = []
    for number, answer in enumerate(graded):
        row, reason = combined(answer, {name: column[number] for name, column in values.items()}, args.weights)
        if reason and rejects_undecided:
            rejects.append({"uid": answer["uid"], "reason": reason})
        else:
            rows.append(row)

    conserve("combine_rewards", len(graded), len(rows), len(rejects))
    write_pickle(args.output, rows)
    write_rejects(args.output, rejects)
    write_manifest(
        args.output,
        [args.graded, *files.values()],
        {"weights": args.weights},
        rows=len(rows),
        rejects=len(rejects),
    )
    write_usage(args.output, code=args.code)

    if rejects:
        say(f"{len(rejects)} answers are undecided and not trained on; the first reason: {rejects[0]['reason']}")
    known = [row["reward"] for row in rows if row["reward"] is not None]
    print(f"reward={sum(known) / max(1, len(known)):.4f} n={len(rows)}")


if __name__ == "__main__":
    run(main)
