"""Take a teacher's dialogues from the frozen prompts of a file that has them, in place of exploring.

The output has the fields of `explore` that the following stages need: id, given_dialog, generated_dialog, target_items
and rec_success, and base_turn where the file tells it.

    python -m workflow_scripts.tasks.recommend.import_dialogues --prompts runs/mine/prompts/pool.parquet \\
        --settings '{"explore": {"reranked": "dialogues.json"}}' --output /tmp/dialogues.jsonl
"""

import json
from itertools import islice
from typing import Any

from workflow_scripts.config.load import settings_help
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import write_jsonl
from workflow_scripts.core.records import read_records
from workflow_scripts.core.running.cli import add_code_argument, arguments, run
from workflow_scripts.core.running.manifest import write_manifest
from workflow_scripts.tasks.recommend.add_base_turn import base_turn
from workflow_scripts.tasks.recommend.settings import Settings


def line_of(prompt: dict[str, Any], is_ready: bool) -> dict[str, Any]:
    """Return a prompt with its interaction as a line of the output. If it is ready to be learnt, it has a base_turn."""
    line = {
        "id": prompt["id"],
        "given_dialog": prompt["dialog"],
        "generated_dialog": prompt["interaction"],
        "target_items": prompt["reference"],
        "rec_success": prompt["rec_success"],
    }
    if prompt["base_turn"] is not None:
        line["base_turn"] = prompt["base_turn"]
    if is_ready:
        line["base_turn"] = base_turn(line)
    return line


def main() -> None:
    parser = arguments(__doc__)
    add_code_argument(parser)
    parser.add_argument("--prompts", required=True, help="the frozen pool, made from the file (.parquet)")
    parser.add_argument("--settings", type=json.loads, required=True, help=settings_help("recommend", "explore"))
    parser.add_argument("--output", required=True, help="the .jsonl to write")
    args = parser.parse_args()

    explore = Settings.model_validate(args.settings).explore
    if not explore or not explore.source:
        raise BadInput("--settings: recommend.explore names the file of dialogues: explored, reranked or sft; give one")
    form, file = explore.source

    prompts = list(islice(read_records(args.prompts), explore.start, explore.end))
    if not prompts:
        raise BadInput(f"{args.prompts}: recommend.explore.start {explore.start} leaves no dialogue")
    if "interaction" not in prompts[0]:
        raise BadInput(f"{args.prompts}: its prompts have no `interaction`; freeze the pool from {file} again")

    lines = [line_of(prompt, is_ready=form == "sft") for prompt in prompts]
    write_jsonl(args.output, lines)
    successes = sum(line["rec_success"] for line in lines)
    write_manifest(args.output, [args.prompts], args.settings, rows=len(lines), successful=successes)
    print(f"{len(lines)} dialogues of {file}, {successes} successful")


if __name__ == "__main__":
    run(main)
