"""Write the script of a split: what the stand-in answers to each prompt, by the task (`Rehearsal` in tasks/).

The script is JSON: for each prompt `id`, `trigger`, `prompt_tokens` and `answers`. An answer has its `turns` and
`is_right`: whether grading should find it right (null: nobody knows).
"""

from typing import Any

from workflow_scripts import tasks
from workflow_scripts.core.checkpoint import model_folder
from workflow_scripts.core.files import write_json
from workflow_scripts.core.pretrained import AutoTokenizer
from workflow_scripts.core.records import read_records
from workflow_scripts.core.running.cli import (
    add_code_argument,
    add_task_arguments,
    add_template_argument,
    arguments,
    run,
    say,
    task_files,
)
from workflow_scripts.core.templates import render
from workflow_scripts.core.tokens import encode_prompt


def entries(
    prompts: list[Any], versions: list[str], conversation: Any, rehearsal: Any, template: str, tokenizer: Any
) -> list[dict[str, Any]]:
    """Return the script's entries for some prompts in all versions in which they are asked."""
    result = []

    for prompt in prompts:
        answers = [{"turns": answer.turns, "is_right": answer.is_right} for answer in rehearsal.answers(prompt)]
        requests: dict[str, Any] = {}
        for version in versions:
            requests |= conversation.requests(prompt, version)

        for trigger, request in requests.items():
            tokens = encode_prompt(tokenizer, render(template, request, tokenizer))
            result.append({"id": prompt["id"], "trigger": trigger, "prompt_tokens": tokens, "answers": answers})

    return result


def main() -> None:
    parser = arguments(__doc__)
    add_task_arguments(parser)
    add_code_argument(parser)
    parser.add_argument("--prompts", required=True, help="a frozen split (.parquet)")
    parser.add_argument("--versions", nargs="+", required=True, help="in which the prompts are asked: auto, trigger, …")
    parser.add_argument("--model", required=True, help="checkpoint.json of the stand-in, for its tokenizer")
    add_template_argument(parser)
    parser.add_argument("--output", required=True, help="the script to write (.json)")
    args = parser.parse_args()

    files = task_files(args)
    conversation = tasks.load(args.task, "Conversation", args.task_settings, files)
    rehearsal = tasks.load(args.task, "Rehearsal", args.task_settings, files)
    tokenizer = AutoTokenizer.from_pretrained(model_folder(args.model))
    prompts = list(read_records(args.prompts))

    script = entries(prompts, args.versions, conversation, rehearsal, args.template, tokenizer)
    write_json(args.output, script)
    say(f"{args.output}: answers to {len(prompts)} prompts, asked in {len(script)} ways")


if __name__ == "__main__":
    run(main)
