"""Write the digest files of the prompts that a round answers, if a round answers only a part of them.

    python -m workflow_scripts.slice_prompts --prompts runs/arithmetic/prompts/train.parquet \\
        --round 1 --size 64 --seed 0 --shards 2 --output /tmp/r1

It prints how many rounds answer all prompts once.
"""

from pathlib import Path

from workflow_scripts.core.records import read_records
from workflow_scripts.core.running.cli import add_code_argument, arguments, run
from workflow_scripts.core.shards import write_digests
from workflow_scripts.core.slices import Slicing, rounds_per_pass, slice_of


def main() -> None:
    parser = arguments(__doc__)
    add_code_argument(parser)
    parser.add_argument("--prompts", required=True, help="the frozen train prompts (.parquet)")
    parser.add_argument("--round", type=int, required=True, help="number of the round, from 1")
    parser.add_argument("--size", type=int, required=True, help="prompts per round")
    parser.add_argument("--seed", type=int, default=0, help="seed of the order of the prompts")
    parser.add_argument("--shards", type=int, nargs="+", required=True, help="numbers of shards of the round's answers")
    parser.add_argument("--output", type=Path, required=True, help="folder for the digest files")
    args = parser.parse_args()

    records = {record["id"]: record for record in read_records(args.prompts)}
    chosen = slice_of(list(records), Slicing(args.size, args.seed), args.round)

    write_digests(args.output, args.shards, [records[prompt] for prompt in chosen])
    rounds = rounds_per_pass(len(records), args.size)
    print(f"round {args.round}: {len(chosen)} of {len(records)} prompts; {rounds} rounds answer all of them")


if __name__ == "__main__":
    run(main)
