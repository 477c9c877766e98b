"""Give each of a teacher's dialogues its `base_turn`: the interactions that the teacher needed for a hit, else 0.

Rollouts with recommend.tgi or new_tgi start within them. By hand:

    python -m workflow_scripts.add_base_turn --explored runs/recommend-tiny/explore/recommend-tiny.jsonl \\
        --output /tmp/base_turn.jsonl
"""

from workflow_scripts.core.running.cli import arguments, run
from workflow_scripts.core.running.manifest import write_manifest
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import write_jsonl
from workflow_scripts.core.records import conserve, read_records


def base_turn(line: dict) -> int:
    """Interactions up to the hit; a successful dialogue ends with it."""
    if not line["rec_success"]:
        return 0
    return sum(message["role"] == "assistant" for message in line["generated_dialog"])


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--explored", required=True, help="what explore or rerank wrote (.jsonl)")
    parser.add_argument("--output", required=True, help="the .jsonl to write")
    args = parser.parse_args()
    lines = list(read_records(args.explored))
    for number, line in enumerate(lines, 1):
        if missing := [key for key in ("id", "rec_success", "generated_dialog") if key not in line]:
            raise BadInput(f"{args.explored}, line {number}: has no {missing[0]}; it is not of the stage explore")
    found = [line | {"base_turn": base_turn(line)} for line in lines]
    conserve("add_base_turn", len(lines), len(found), 0)
    counts = {str(turn): sum(line["base_turn"] == turn for line in found) for turn in {x["base_turn"] for x in found}}
    write_jsonl(args.output, found)
    write_manifest(args.output, [args.explored], {}, rows=len(found), by_turn=counts)
    print(f"{len(found)} dialogues by base_turn: {dict(sorted(counts.items()))}")


if __name__ == "__main__":
    run(main)
