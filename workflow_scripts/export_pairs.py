"""Write preference pairs from the graded answers of a run, for `train_reward_model` or for other trainers.

Of each question, the answer with the highest reward is paired with the one with the lowest, the second highest with the
second lowest, and so on, as long as their rewards differ by at least `--margin`. So no answer is in two pairs. Equal
texts count once. Answers that were cut off, that are empty or undecided are left out.

    python -m workflow_scripts.export_pairs --results runs/reference-tiny/results/r1/auto/*_matchlog.pkl \\
        --margin 0.1 --output data/pairs.jsonl
"""

from collections.abc import Iterator
from typing import Any

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import write_jsonl
from workflow_scripts.core.records import read_records
from workflow_scripts.core.running.cli import arguments, run
from workflow_scripts.core.running.manifest import write_manifest

Record = dict[str, Any]

CUT_OFF = "length"  # the finish reason of an answer that reached its limit


def is_usable(answer: Record) -> bool:
    """Return whether an answer ended by itself, has text, and has a reward."""
    return answer["finish"] != CUT_OFF and bool(answer["answer"].strip()) and answer["reward"] is not None


def distinct(answers: list[Record]) -> list[Record]:
    """Return the answers without those whose text, up to white space around it, occurs before."""
    by_text: dict[str, Record] = {}
    for answer in answers:
        by_text.setdefault(answer["answer"].strip(), answer)
    return list(by_text.values())


def pairs_of(answers: list[Record], margin: float) -> Iterator[Record]:
    """Yield the pairs of a question's answers, from the largest difference of rewards to the smallest."""
    ranked = sorted(answers, key=lambda answer: (-answer["reward"], answer["uid"]))

    for number in range(len(ranked) // 2):
        chosen, rejected = ranked[number], ranked[-1 - number]
        difference = chosen["reward"] - rejected["reward"]
        if difference <= 0 or difference < margin:
            return
        yield {
            "id": chosen["id"],
            "prompt": chosen.get("messages") or chosen["question"],
            "chosen": chosen["answer"].strip(),
            "rejected": rejected["answer"].strip(),
            "chosen_score": chosen["reward"],
            "rejected_score": rejected["reward"],
        }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--results", required=True, nargs="+", help="graded shards (…_matchlog.pkl)")
    parser.add_argument("--margin", type=float, default=0.0, help="least difference between the rewards of a pair")
    parser.add_argument("--output", required=True, help="the .jsonl to write")
    args = parser.parse_args()

    records = [record for path in args.results for record in read_records(path)]
    by_question: dict[str, list[Record]] = {}
    for record in filter(is_usable, records):
        by_question.setdefault(record["id"], []).append(record)

    candidates = {question: distinct(answers) for question, answers in by_question.items()}
    pairs = [pair for answers in candidates.values() for pair in pairs_of(answers, args.margin)]
    if not pairs:
        least = f"by {args.margin} or more" if args.margin else "at all"
        raise BadInput(f"{', '.join(args.results)}: no question has two usable answers whose rewards differ {least}")

    usable = sum(map(len, by_question.values()))
    different = sum(map(len, candidates.values()))
    counts = {
        "pairs": len(pairs),
        "unusable": len(records) - usable,
        "repeated": usable - different,
        "unpaired": different - 2 * len(pairs),
    }

    write_jsonl(args.output, pairs)
    write_manifest(args.output, args.results, {"margin": args.margin}, **counts)
    print(
        f"{args.output}: {len(pairs)} pairs of {len(records)} answers; {counts['unusable']} cut off, empty or "
        f"undecided, {counts['repeated']} repeated, {counts['unpaired']} without a partner"
    )


if __name__ == "__main__":
    run(main)
