"""Give each of a teacher's dialogues its `base_turn`: the interactions that the teacher needed for a hit, or 0.

A dialogue from a file that tells its base_turn keeps it.

Rollouts with recommend.tgi or recommend.new_tgi start within the teacher's dialogues, and base_turn says where.

    python -m workflow_scripts.tasks.recommend.add_base_turn \\
        --explored runs/recommend-tiny/explore/recommend-tiny.jsonl --output /tmp/base_turn.jsonl
"""

from collections import Counter
from typing import Any

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import write_jsonl
from workflow_scripts.core.records import conserve, read_records
from workflow_scripts.core.running.cli import add_code_argument, arguments, run
from workflow_scripts.core.running.manifest import write_manifest


def base_turn(line: dict[str, Any]) -> int:
    """Return the interactions up to the hit, with which a successful dialogue ends, unless the line tells already."""
    if line.get("base_turn") is not None:
        return line["base_turn"]
    if not line["rec_success"]:
        return 0
    return sum(message["role"] == "assistant" for message in line["generated_dialog"])


def main() -> None:
    parser = arguments(__doc__)
    add_code_argument(parser)
    parser.add_argument("--explored", required=True, help="the teacher's dialogues, reranked or not (.jsonl)")
    parser.add_argument("--output", required=True, help="the .jsonl to write")
    args = parser.parse_args()

    lines = list(read_records(args.explored))
    for number, line in enumerate(lines, 1):
        missing = [key for key in ("id", "rec_success", "generated_dialog") if key not in line]
        if missing:
            raise BadInput(f"{args.explored}, line {number}: has no {missing[0]}; give the output of explore or rerank")

    results = [line | {"base_turn": base_turn(line)} for line in lines]
    conserve("add_base_turn", len(lines), len(results), 0)
    counts = dict(sorted(Counter(line["base_turn"] for line in results).items()))

    write_jsonl(args.output, results)
    by_turn = {str(turn): count for turn, count in counts.items()}
    write_manifest(args.output, [args.explored], {}, rows=len(results), by_turn=by_turn)
    print(f"{len(results)} dialogues by base_turn: {counts}")


if __name__ == "__main__":
    run(main)
