"""Write the training data of the cold start: worked answers as token ids, with the environment's text masked.

The task makes up examples or reads questions with solutions from a file. Conversations, and pairs of prompt and
response, are read in the formats of core/formats.py.
"""

from collections import Counter
from itertools import islice
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
from workflow_scripts.core.records import conserve
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
from workflow_scripts.screen_prompts import add_screening_arguments, avoided_prompts, screen_rows, screening_used

LABEL_SHARE = 0.01  # of the rows: fewer different solutions are labels


def worked_rows(
    cold_start: Any, conversation: Any, settings: dict[str, Any], seed: int, template: str, tokenizer
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the task's worked examples as training rows, and the rejects with their number and reason."""
    rows = []
    rejects = []
    examples = islice(cold_start.examples(settings, seed), settings["limit"])

    for number, example in enumerate(progress(examples, total=None, desc="construct_sft", unit="row")):
        if example.get("fault"):
            rejects.append({"row": number + 1, "question": example["question"], "reason": example["fault"]})
            continue

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

    conserve("construct_sft", len(rows) + len(rejects), len(rows), len(rejects))
    return rows, rejects


def check_solutions(rows: list[dict[str, Any]], file: str) -> None:
    """Raise BadInput if the solutions are labels: very few different ones. Else log three examples."""
    different = sorted({row["answer"] for row in rows})

    if len(different) < LABEL_SHARE * len(rows):
        raise BadInput(
            f"{file}: {len(rows)} rows have only {len(different)} different solutions, such as {different[0]!r:.80}; "
            "that is a label and no worked solution: name the right column with cold_start.solution_key"
        )

    for row in rows[:: max(1, len(rows) // 3)][:3]:
        say(f"example: {row['question']!r:.200} → {row['answer']!r:.300}")


def main() -> None:
    parser = arguments(__doc__)
    add_task_arguments(parser)
    add_code_argument(parser)
    parser.add_argument("--settings", required=True, help=settings_help("cold_start"))
    add_template_argument(parser)
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--model", required=True, help="checkpoint.json of the model, for its tokenizer")
    add_screening_arguments(parser)
    parser.add_argument("--output", required=True, help="the .pkl to write")
    args = parser.parse_args()

    settings = ColdStart.model_validate_json(args.settings).model_dump(mode="json")
    conversation = tasks.load(args.task, "Conversation", args.task_settings, task_files(args))
    tokenizer = AutoTokenizer.from_pretrained(model_folder(args.model))
    file = settings["file"]
    rejects: list[dict[str, Any]] = []

    if file and not has_worked_answers(settings):
        source = settings | {"format": "sft"}
        rows, rejects = read_rows(source, tokenizer, args.template, conversation.segments)
    else:
        cold_start = tasks.load(args.task, "ColdStart", args.task_settings, task_files(args))
        rows, rejects = worked_rows(cold_start, conversation, settings, args.seed, args.template, tokenizer)
        if file:
            check_solutions(rows, file)
    if file:
        rows = screen_rows(args, rows, rejects, file)
        say(f"left out: {describe_rejects(rejects, Counter())}")

    write_rejects(args.output, rejects)
    if not rows:
        raise BadInput(f"{file}: nothing is left to train on; left out: {describe_rejects(rejects, Counter())}")

    write_pickle(args.output, rows)
    local = [file] if file and Path(file).exists() else []  # a data set on the hub is no local file
    used = {"template": args.template, "seed": args.seed} | screening_used(args)
    inputs = [args.model, *local, *avoided_prompts(args)]
    write_manifest(args.output, inputs, settings | used, rows=len(rows), rejects=len(rejects))
    print(f"{Path(args.output).name}: {len(rows)} rows, {sum(sum(row['mask']) for row in rows)} trained tokens")


if __name__ == "__main__":
    run(main)
