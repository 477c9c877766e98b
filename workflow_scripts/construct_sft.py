"""Write the training data of the cold start: worked answers as token ids, with the environment's text masked.

The task makes up examples or reads questions with solutions from a file. Conversations, and pairs of prompt and
response, are read in the formats of core/formats.py.
"""

from collections import Counter
from pathlib import Path
from typing import Any

from workflow_scripts import tasks
from workflow_scripts.config.load import settings_help
from workflow_scripts.config.sections import ColdStart
from workflow_scripts.core.checkpoint import model_folder
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import write_rejects
from workflow_scripts.core.formats import describe_rejects, has_worked_answers, read_rows
from workflow_scripts.core.pickles import write_pickle
from workflow_scripts.core.pretrained import AutoTokenizer
from workflow_scripts.core.running.cli import (
    add_code_argument,
    add_task_arguments,
    add_template_argument,
    arguments,
    progress,
    run,
    say,
    task_files,
)
from workflow_scripts.core.running.manifest import write_manifest
from workflow_scripts.core.templates import render
from workflow_scripts.core.tokens import encode_pieces, encode_prompt


def worked_rows(
    cold_start: Any, conversation: Any, settings: dict[str, Any], seed: int, template: str, tokenizer
) -> list[dict[str, Any]]:
    """Return the task's worked examples as training rows."""
    rows = []
    examples = cold_start.examples(settings, seed)

    for number, example in enumerate(progress(examples, total=None, desc="construct_sft", unit="row")):
        prompt = {"id": "", "question": example["question"], "reference": None, "level": ""}
        version = "auto" if example["trigger"] == "auto" else "trigger"
        request = conversation.requests(prompt, version)[example["trigger"]]
        prompt_text = render(template, request, tokenizer)
        tokens, mask = encode_pieces(tokenizer, example["pieces"])
        rows.append(
            {
                "uid": f"sft.{number}",
                "prompt_text": prompt_text,
                "question": example["question"],
                "answer": "".join(text for text, _ in example["pieces"]),
                "prompt_tokens": encode_prompt(tokenizer, prompt_text),
                "tokens": tokens,
                "mask": mask,
                "policy": "foreign",
            }
        )

    return rows


def main() -> None:
    parser = arguments(__doc__)
    add_task_arguments(parser)
    add_code_argument(parser)
    parser.add_argument("--settings", required=True, help=settings_help("cold_start"))
    add_template_argument(parser)
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--model", required=True, help="checkpoint.json of the model, for its tokenizer")
    parser.add_argument("--output", required=True, help="the .pkl to write")
    args = parser.parse_args()

    settings = ColdStart.model_validate_json(args.settings).model_dump(mode="json")
    conversation = tasks.load(args.task, "Conversation", args.task_settings, task_files(args))
    tokenizer = AutoTokenizer.from_pretrained(model_folder(args.model))
    file = settings["file"]
    rejects: list[dict[str, Any]] = []

    if file and not has_worked_answers(file):
        source = {"file": file, "split": "train", "revision": None, "format": "sft"}
        rows, rejects = read_rows(source, tokenizer, args.template, conversation.segments)
        say(f"left out: {describe_rejects(rejects, Counter())}")
    else:
        cold_start = tasks.load(args.task, "ColdStart", args.task_settings, task_files(args))
        rows = worked_rows(cold_start, conversation, settings, args.seed, args.template, tokenizer)

    write_rejects(args.output, rejects)
    if not rows:
        raise BadInput(f"{file}: nothing is left to train on; left out: {describe_rejects(rejects, Counter())}")

    write_pickle(args.output, rows)
    local = [file] if file and Path(file).exists() else []  # a data set on the hub is no local file
    used = {"template": args.template, "seed": args.seed}
    write_manifest(args.output, [args.model, *local], settings | used, rows=len(rows), rejects=len(rejects))
    print(f"{Path(args.output).name}: {len(rows)} rows, {sum(sum(row['mask']) for row in rows)} trained tokens")


if __name__ == "__main__":
    run(main)
