"""Take answers that exist as files for a round's own: one shard of them.

Records have the fields of a run's answers (question, answer, reference, prompt_text, level) or those of the task's
original system (for math, AutoCode's pickles: question, solution, correct, req, task). Their id is the digest of their
normalised question, and further answers to a question are numbered. Texts are tokenised once, here. The policy that
sampled them is unknown, so they are marked `foreign`. An empty file, a file in another form and a record that lacks a
field are errors.

    python -m workflow_scripts.import_results --task math --model runs/arithmetic/checkpoints/r0/checkpoint.json \\
        --results results/train_0.json_matchlog.pkl --output /tmp/answers.pkl
"""

from collections import Counter
from typing import Any

from workflow_scripts import tasks
from workflow_scripts.core.checkpoint import model_folder
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.identity import record_id, shard_of
from workflow_scripts.core.pickles import write_pickle
from workflow_scripts.core.pretrained import AutoTokenizer
from workflow_scripts.core.records import read_records
from workflow_scripts.core.running.cli import (
    add_code_argument,
    add_task_arguments,
    arguments,
    progress,
    run,
    shard,
    task_files,
)
from workflow_scripts.core.running.manifest import write_manifest
from workflow_scripts.core.tokens import encode_pieces, encode_prompt


def converted(path: str, number: int, record: dict[str, Any], importer: Any) -> dict[str, Any]:
    """Return a record with this project's field names. Raise BadInput if it lacks one."""
    if importer.is_foreign_format(record):
        record = importer.convert(record)

    missing = [name for name in importer.needed if record.get(name) is None]
    if missing:
        raise BadInput(
            f"{path}, record {number}: lacks {', '.join(missing)}; it has {', '.join(sorted(record)) or 'no keys'}. "
            f"Known forms are {importer.known['results']}"
        )
    for name in ("question", "answer", "prompt_text", "level"):
        if not isinstance(record[name], str) or not record[name]:
            raise BadInput(f"{path}, record {number}: {name} should be text, found {record[name]!r:.60}")

    return {name: record[name] for name in importer.needed} | {"trigger": record.get("trigger", "auto")}


def main() -> None:
    parser = arguments(__doc__)
    add_task_arguments(parser)
    add_code_argument(parser)
    parser.add_argument("--results", required=True, nargs="+", help="files of records, such as .pkl")
    parser.add_argument("--model", required=True, help="checkpoint.json of the model, for its tokenizer")
    parser.add_argument("--shard", type=shard, default="1_0", help="{number of shards}_{this one's rank}")
    parser.add_argument("--output", required=True, help="the .pkl to write")
    args = parser.parse_args()

    importer = tasks.load(args.task, "Importer", args.task_settings, task_files(args))
    conversation = tasks.load(args.task, "Conversation", args.task_settings, task_files(args))
    tokenizer = AutoTokenizer.from_pretrained(model_folder(args.model))
    shards, rank = map(int, args.shard.split("_"))
    answers = []
    seen: Counter[tuple[str, str]] = Counter()

    for path in args.results:
        records = list(read_records(path))
        if not records:
            raise BadInput(f"{path}: has no records; known forms are {importer.known['results']}")

        for number, record in enumerate(progress(records, total=len(records), desc="import", unit="record")):
            answer = converted(path, number, record, importer)
            prompt_id = record_id(answer["question"])
            trigger = answer["trigger"]
            uid = f"{prompt_id}.{trigger}.{seen[prompt_id, trigger]}"
            seen[prompt_id, trigger] += 1
            if shard_of(prompt_id, shards) != rank:
                continue

            tokens, mask = encode_pieces(tokenizer, conversation.segments(answer["answer"]))
            answers.append(
                {
                    **answer,
                    "id": prompt_id,
                    "uid": uid,
                    "prompt_tokens": encode_prompt(tokenizer, answer["prompt_text"]),
                    "tokens": tokens,
                    "mask": mask,
                    "finish": "imported",
                    "sampled_logps": [],
                    "policy": "foreign",
                }
            )

    write_pickle(args.output, answers)
    write_manifest(args.output, [args.model, *args.results], {}, rows=len(answers), policy="foreign")


if __name__ == "__main__":
    run(main)
