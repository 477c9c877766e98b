"""Training rows from data that exists: supervised, rewarded or preference data in the formats people have.

Reads .jsonl, .json, .csv and .parquet files, folders that `datasets` saved, and data sets on the hub; the formats and
their columns stand in core/formats.py. Texts are tokenised once, here; what the assistant says is trained on, the rest
is masked. Records that cannot be used go to <output>.rejects.jsonl with a reason each. By hand:

    python -m workflow_scripts.import_data --task arithmetic --model runs/arithmetic/checkpoints/r0/checkpoint.json \\
        --settings '{"source": {"file": "pairs.jsonl", "format": "preference"}}' --output /tmp/pairs.pkl
"""

from collections import Counter
from pathlib import Path

from workflow_scripts import tasks
from workflow_scripts.core.advantages import advantages, filtered
from workflow_scripts.core.checkpoint import model_folder
from workflow_scripts.core.cli import arguments, run, say
from workflow_scripts.core.config import settings_help
from workflow_scripts.core.formats import left_out, read_rows
from workflow_scripts.core.manifest import write_manifest
from workflow_scripts.core.pretrained import AutoTokenizer
from workflow_scripts.core.prompts import TEMPLATES
from workflow_scripts.core.records import BadInput, conserve, write_pickle, write_rejects
from workflow_scripts.core.sections import Data


def with_advantages(rows: list[dict], settings: dict, dropped: Counter) -> list[dict]:
    """Rewarded rows with their advantage among the answers to the same prompt, those without one dropped."""
    rewards, groups = [row["reward"] for row in rows], [row["req"] for row in rows]
    values = advantages(rewards, groups, settings["advantage"], limit=settings["advantage_clip"])
    kept = [row | {"advantage": value} for row, value in zip(rows, values) if value is not None]
    groups = {row["req"] for row, value in zip(rows, values) if value is None}
    conserve("advantages", len(rows), len(kept), sum(value is None for value in values))
    if groups:
        dropped["answer in a group without variance"] = len(rows) - len(kept)
        say(f"{len(groups)} of {len({row['req'] for row in rows})} groups have no variance and are dropped")
    return kept


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--task", required=True, help="a module of workflow_scripts/tasks: whose words an answer has")
    parser.add_argument("--settings", required=True, help=settings_help("data"))
    parser.add_argument("--template", choices=(*TEMPLATES, "chat"), default="deepseek", help="prompt template")
    parser.add_argument("--model", required=True, help="checkpoint.json of the model, for its tokenizer")
    parser.add_argument("--output", required=True, help="the .pkl to write")
    args = parser.parse_args()
    settings = Data.model_validate_json(args.settings).model_dump(mode="json")
    if not (source := settings["source"]):
        raise BadInput("data.source: name the file and its format")
    tokenizer = AutoTokenizer.from_pretrained(model_folder(args.model))
    segments = tasks.load(args.task).segments
    (rows, rejects), dropped = read_rows(source, tokenizer, args.template, segments), Counter()
    if source["format"] == "rewarded":
        rows = filtered(with_advantages(rows, settings, dropped), settings, dropped)
    write_rejects(args.output, rejects)
    say(f"left out: {left_out(rejects, dropped)}")
    if not rows:
        raise BadInput(f"{source['file']}: nothing is left to train on; left out: {left_out(rejects, dropped)}")
    write_pickle(args.output, rows)
    local = [source["file"]] if Path(source["file"]).exists() else []
    used = settings | {"template": args.template}
    counts = {"rows": len(rows), "rejects": len(rejects), "dropped": dict(dropped)}
    write_manifest(args.output, [args.model, *local], used, policy="foreign", **counts)
    print(f"{Path(args.output).name}: {len(rows)} rows, {len(rejects)} rejects, {dropped.total()} dropped")


if __name__ == "__main__":
    run(main)
