"""The cold start's training data: worked answers as token ids, what the environment writes masked from the loss.

Examples are made up by the task, or read from a file: questions with solutions by the task, conversations and pairs of
prompt and response in the formats of core/formats.py.
"""

from collections import Counter
from pathlib import Path

from workflow_scripts import tasks
from workflow_scripts.core.checkpoint import model_folder
from workflow_scripts.core.cli import arguments, progress, run, say
from workflow_scripts.core.config import settings_help
from workflow_scripts.core.formats import has_solutions, left_out, read_rows
from workflow_scripts.core.manifest import write_manifest
from workflow_scripts.core.pretrained import AutoTokenizer
from workflow_scripts.core.prompts import TEMPLATES, render
from workflow_scripts.core.records import BadInput, write_pickle, write_rejects
from workflow_scripts.core.sections import ColdStart
from workflow_scripts.core.tokens import encode_pieces, encode_prompt


def worked_rows(task, settings: dict, seed: int, template: str, tokenizer) -> list[dict]:
    """The task's worked examples as rows."""
    rows = []
    examples = task.worked_examples(settings, seed)
    for number, example in enumerate(progress(examples, total=None, desc="construct_sft", unit="row")):
        asked = task.requests(example["question"], "auto" if example["trigger"] == "auto" else "trigger")
        req = render(template, asked[example["trigger"]], tokenizer)
        tokens, mask = encode_pieces(tokenizer, example["pieces"])
        rows.append(
            {
                "qid": f"sft.{number}",
                "req": req,
                "instruction": example["question"],
                "output": "".join(text for text, _ in example["pieces"]),
                "prompt_tokens": encode_prompt(tokenizer, req),
                "tokens": tokens,
                "mask": mask,
                "policy": "foreign",
            }
        )
    return rows


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--task", required=True, help="a module of workflow_scripts/tasks")
    parser.add_argument("--settings", required=True, help=settings_help("cold_start"))
    parser.add_argument("--template", choices=(*TEMPLATES, "chat"), default="deepseek", help="prompt template")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    parser.add_argument("--model", required=True, help="checkpoint.json of the model, for its tokenizer")
    parser.add_argument("--output", required=True, help="the .pkl to write")
    args = parser.parse_args()
    task = tasks.load(args.task)
    settings = ColdStart.model_validate_json(args.settings).model_dump(mode="json")
    tokenizer = AutoTokenizer.from_pretrained(model_folder(args.model))
    file, rejects, dropped = settings["file"], [], Counter()
    if file and not has_solutions(file):
        source = {"file": file, "split": "train", "revision": None, "format": "sft"}
        rows, rejects = read_rows(source, tokenizer, args.template, task.segments)
        say(f"left out: {left_out(rejects, dropped)}")
    else:
        rows = worked_rows(task, settings, args.seed, args.template, tokenizer)
    write_rejects(args.output, rejects)
    if not rows:
        raise BadInput(f"{file}: nothing is left to train on; left out: {left_out(rejects, dropped)}")
    write_pickle(args.output, rows)
    sources = [file] if file and Path(file).exists() else []  # not one on the hub
    used = {"template": args.template, "seed": args.seed}
    write_manifest(args.output, [args.model, *sources], settings | used, rows=len(rows), rejects=len(rejects))
    print(f"{Path(args.output).name}: {len(rows)} rows, {sum(sum(row['mask']) for row in rows)} trained tokens")


if __name__ == "__main__":
    run(main)
