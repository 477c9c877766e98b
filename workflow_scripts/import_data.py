"""Make training rows of data that exists: supervised, rewarded or preference data in the usual formats.

Sources are .jsonl, .json, .csv and .parquet files, folders that `datasets` saved, and data sets on the hub. The formats
and their columns are listed in core/formats.py. Texts are tokenised once, here. What the assistant wrote is trained
on, and the rest is masked. Unusable records go to OUTPUT.rejects.jsonl, each with its reason.

    python -m workflow_scripts.import_data --task math --model runs/arithmetic/checkpoints/r0/checkpoint.json \\
        --settings '{"source": {"file": "pairs.jsonl", "format": "preference"}}' --output /tmp/pairs.pkl
"""

from collections import Counter
from pathlib import Path
from typing import Any

from workflow_scripts import tasks
from workflow_scripts.config.load import settings_help
from workflow_scripts.config.sections import Data
from workflow_scripts.core.advantages import advantages, filter_rows
from workflow_scripts.core.checkpoint import model_folder
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import write_rejects
from workflow_scripts.core.formats import describe_rejects, read_rows
from workflow_scripts.core.pickles import write_pickle
from workflow_scripts.core.pretrained import AutoTokenizer
from workflow_scripts.core.records import conserve
from workflow_scripts.core.running.cli import (
    add_code_argument,
    add_task_arguments,
    add_template_argument,
    arguments,
    run,
    say,
    task_files,
)
from workflow_scripts.core.running.manifest import write_manifest


def with_advantages(rows: list[dict[str, Any]], settings: dict[str, Any], dropped: Counter) -> list[dict[str, Any]]:
    """Give rewarded rows their advantage among the answers to the same prompt; drop rows that have none."""
    rewards = [row["reward"] for row in rows]
    groups = [row["prompt_text"] for row in rows]
    values = advantages(rewards, groups, settings["advantage"], limit=settings["advantage_clip"])

    kept = [row | {"advantage": value} for row, value in zip(rows, values) if value is not None]
    without_variance = {group for group, value in zip(groups, values) if value is None}
    conserve("advantages", len(rows), len(kept), sum(value is None for value in values))

    if without_variance:
        dropped["answer in a group without variance"] = len(rows) - len(kept)
        say(f"{len(without_variance)} of {len(set(groups))} groups have no variance and are dropped")

    return kept


def main() -> None:
    parser = arguments(__doc__)
    add_task_arguments(parser)
    add_code_argument(parser)
    parser.add_argument("--settings", required=True, help=settings_help("data"))
    add_template_argument(parser)
    parser.add_argument("--model", required=True, help="checkpoint.json of the model, for its tokenizer")
    parser.add_argument("--output", required=True, help="the .pkl to write")
    args = parser.parse_args()

    settings = Data.model_validate_json(args.settings).model_dump(mode="json")
    source = settings["source"]
    if not source:
        raise BadInput("data.source: name the file and its format")

    tokenizer = AutoTokenizer.from_pretrained(model_folder(args.model))
    conversation = tasks.load(args.task, "Conversation", args.task_settings, task_files(args))
    rows, rejects = read_rows(source, tokenizer, args.template, conversation.segments)
    dropped: Counter[str] = Counter()
    if source["format"] == "rewarded":
        rows = filter_rows(with_advantages(rows, settings, dropped), settings, dropped)

    write_rejects(args.output, rejects)
    say(f"left out: {describe_rejects(rejects, dropped)}")
    if not rows:
        raise BadInput(f"{source['file']}: nothing is left to train on; left out: {describe_rejects(rejects, dropped)}")

    write_pickle(args.output, rows)
    local = [source["file"]] if Path(source["file"]).exists() else []
    used = settings | {"template": args.template}
    counts = {"rows": len(rows), "rejects": len(rejects), "dropped": dict(dropped)}
    write_manifest(args.output, [args.model, *local], used, policy="foreign", **counts)
    print(f"{Path(args.output).name}: {len(rows)} rows, {len(rejects)} rejects, {dropped.total()} dropped")


if __name__ == "__main__":
    run(main)
