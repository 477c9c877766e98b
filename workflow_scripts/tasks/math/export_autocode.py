"""Write a run's files in AutoCode's own formats, for its scripts: graded results, meta files or offline data.

    python -m workflow_scripts.tasks.math.export_autocode --kind results \\
        --input runs/arithmetic/results/r1/auto/*_matchlog.pkl --output /tmp/matchlog.pkl
"""

from collections.abc import Iterable
from typing import Any

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.pickles import read_pickle, write_pickle
from workflow_scripts.core.records import read_records
from workflow_scripts.core.running.cli import arguments, run
from workflow_scripts.tasks.math.conversation import TRIGGERS
from workflow_scripts.tasks.math.selection import PATHS, answers_on


def verdict(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Return AutoCode's `match` of an answer in results. In meta files it is a truth value."""
    return [{"pred": answer.get("prediction", ""), "res": answer["reward"] > 0.5}]


def result(answer: dict[str, Any]) -> dict[str, Any]:
    """Return a graded answer as a record of `…_matchlog.pkl`."""
    return {
        "question": answer["question"] + TRIGGERS.get(answer["trigger"], ""),
        "solution": answer["answer"],
        "correct": answer["reference"],
        "req": answer["prompt_text"],
        "task": answer["level"],
        "key": answer["path"],
        "match": verdict(answer),
    }


def meta(entries: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return a meta file: {question: {resps by path, cot_nc, cot_nt, pot_nc, pot_nt, …}}."""
    return {
        entry["question"]: {
            "req": entry["prompt_text"],
            "task": entry["level"],
            "correct": entry["reference"],
            "resps": {path: [response(answer) for answer in answers_on(entry, path)] for path in PATHS},
            **{f"{path}_nc": entry["right"][path] for path in PATHS},
            **{f"{path}_nt": entry["total"][path] for path in PATHS},
        }
        for entry in entries
    }


def response(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer of a meta file."""
    return {
        "match": answer["reward"] > 0.5,
        "text": answer["answer"],
        "logp": None,
        "req": answer["prompt_text"],
        "native": answer["trigger"] in ("auto", answer["path"]),
    }


def row(row: dict[str, Any]) -> dict[str, Any]:
    """Return a training row as a record of `offline_….pkl`."""
    is_triggered = ".trigger." in row["kind"]
    return {
        "qid": row["uid"],
        "req": row["prompt_text"],
        "gold": row["reference"],
        "type": row["kind"],
        "instruction": row["question"],
        "output": row["answer"],
        "source": row["source"],
        "trigger_value": TRIGGERS[row["path"]] if is_triggered else "",
        "neg": row["reward"] <= 0.5,
        "reward": row["reward"],
        "logp": None,
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--kind", required=True, choices=("results", "meta", "data"), help="the kind of the files")
    parser.add_argument("--input", required=True, nargs="+", help="files of this kind in a run's folder (.pkl)")
    parser.add_argument("--output", required=True, help="the .pkl to write")
    args = parser.parse_args()

    if args.kind == "meta":
        entries = [entry for path in args.input for entry in read_pickle(path).values()]
        exported: Any = meta(entries)
    else:
        convert = result if args.kind == "results" else row
        records = [record for path in args.input for record in read_records(path)]
        if missing := next((key for key in ("answer", "reward") if records and key not in records[0]), None):
            raise BadInput(
                f"{args.input[0]}: records have no {missing!r}; give graded answers or training data of a run"
            )
        exported = [convert(record) for record in records]

    write_pickle(args.output, exported)
    print(f"{args.output}: {len(exported)} {'questions' if args.kind == 'meta' else 'records'}")


if __name__ == "__main__":
    run(main)
