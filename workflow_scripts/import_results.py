"""Take answers that exist as files in AutoCode's pickle format for a round's own: one shard of them.

Each record needs `question`, `solution`, `correct`, `req` and `task`. Its id is the digest of its normalised
question. The text is tokenised once, here; nobody knows the policy that sampled it, so it is marked `foreign`.
"""

from collections import Counter

from workflow_scripts import tasks
from workflow_scripts.core.checkpoint import model_folder
from workflow_scripts.core.cli import arguments, progress, run, shard
from workflow_scripts.core.manifest import write_manifest
from workflow_scripts.core.pretrained import AutoTokenizer
from workflow_scripts.core.records import BadInput, read_records, record_id, shard_of, write_pickle
from workflow_scripts.core.tokens import encode_pieces, encode_prompt

NEEDED = ("question", "solution", "correct", "req", "task")


def checked(path: str, number: int, record: dict) -> dict:
    if missing := [key for key in NEEDED if key not in record]:
        raise BadInput(f"{path}, record {number}: lacks {', '.join(missing)}; it has {', '.join(sorted(record))}")
    for key in ("question", "solution", "req", "task"):
        if not isinstance(record[key], str) or not record[key]:
            raise BadInput(f"{path}, record {number}: {key} should be text, found {record[key]!r:.60}")
    return record


def trigger_of(question: str, task) -> str:
    """The trigger that a question's text carries: `auto` where it has none."""
    return next((key for key, text in task.TRIGGERS.items() if question.endswith(text)), "auto")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--task", required=True, help="a module of workflow_scripts/tasks")
    parser.add_argument("--results", required=True, nargs="+", help=".pkl files, lists of records")
    parser.add_argument("--model", required=True, help="checkpoint.json of the model, for its tokenizer")
    parser.add_argument("--shard", type=shard, default="1_0", help="{number of shards}_{this one's rank}")
    parser.add_argument("--output", required=True, help="the .pkl to write")
    args = parser.parse_args()
    task = tasks.load(args.task)
    shards, rank = map(int, args.shard.split("_"))
    tokenizer = AutoTokenizer.from_pretrained(model_folder(args.model))
    rows, seen = [], Counter()
    for path in args.results:
        records = list(read_records(path))
        for number, record in enumerate(progress(records, total=len(records), desc="import", unit="record")):
            question = task.question_of(checked(path, number, record))
            name, trigger = record_id(question), trigger_of(record["question"], task)
            seen[name, trigger] += 1
            if shard_of(name, shards) != rank:
                continue
            tokens, mask = encode_pieces(tokenizer, task.segments(record["solution"]))
            rows.append(
                {key: record[key] for key in NEEDED}
                | {"level": record["task"], "id": name, "uid": f"{name}.{trigger}.{seen[name, trigger] - 1}"}
                | {"trigger": trigger, "tokens": tokens, "mask": mask, "finish": "imported"}
                | {"prompt_tokens": encode_prompt(tokenizer, record["req"])}
                | {"policy": "foreign", "sampled_logps": []}
            )
    write_pickle(args.output, rows)
    write_manifest(args.output, [args.model, *args.results], {}, rows=len(rows), policy="foreign")


if __name__ == "__main__":
    run(main)
